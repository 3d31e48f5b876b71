"""Compares image generators by scores of their images, on the prompts that all share.

A generator's score for a prompt is the mean over its images of it. Prompts weigh the
same, however many images they have.

Generators are ranked by win rate: how often a generator has the better score, over all
shared prompts and all other generators; a tie is half a win. It depends neither on the
scale of a score nor on a few prompts with extreme scores. Strengths of a Bradley–Terry
model would give the same order: each pair is compared equally often, so the number of
wins is proportional to the sum over the others of p / (p + q), which grows with p.

Intervals are from bootstrap draws of the prompts (`metrics/bootstrap.py`). All
generators and measures share the draws, so differences are paired.

Axis letters: G generators, P shared prompts, S measures, C columns, D draws, R
rankings.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rahf.errors import InputError
from rahf.evaluation.generator_tally import LEFT_OUT, Tally
from rahf.metrics import bootstrap, correlation, ranking
from rahf.metrics.bootstrap import (
  DRAWS,
  Difference,
  Interval,
  Resampled,
  difference,
)

# A fraction of the range. Closer scores are a tie, since one image in batches of
# different sizes is rounded differently.
TIE = 1e-5
# Two rankings of two generators always correlate with 1 or -1.
FEWEST_GENERATORS = 3
# Prompts that a note names.
_NAMED = 3
_LONGEST = 80  # characters of them


class Measure(NamedTuple):
  """One number about an image.

  Attributes:
    name: of the scorer and its output, such as rahf/overall.
    meaning: in words.
    range: lowest and highest value.
    direction: which end is better, as in `output_ranges.Scale`.
    higher_is_better: the same for programs.
  """

  name: str
  meaning: str
  range: tuple[float, float]
  direction: str
  higher_is_better: bool


class Comparison(NamedTuple):
  """The generators by one measure, in their given order.

  Attributes:
    measure: what is compared.
    means: over the shared prompts.
    win_rates: in [0, 1], higher is better; empty if there is one generator.
    differences: of the mean to that of the generator with the best rank, paired; empty
      if there is one generator.
  """

  measure: Measure
  means: list[Interval]
  win_rates: list[Interval]
  differences: list[Difference]

  @property
  def ranks(self) -> list[int]:
    """Ranks from 1 by win rate; equal ones share a rank. Empty for one generator."""
    return rank([one.value for one in self.win_rates])

  @property
  def mean_ranks(self) -> list[int]:
    """Ranks from 1 by mean. Empty for one generator."""
    if len(self.means) == 1:
      return []
    values = [one.value for one in self.means]
    return rank(values, higher_is_better=self.measure.higher_is_better)


class Judgement(NamedTuple):
  """Everything that is known of the generators.

  Attributes:
    tallies: their images, by name.
    shared: the prompts that were compared.
    comparisons: by each measure.
    draws, seed: of the bootstrap.
    notes: a sentence for everything that readers should know besides.
  """

  tallies: Mapping[str, Tally]
  shared: Sequence[str]
  comparisons: Sequence[Comparison]
  draws: int
  seed: int
  notes: Sequence[str]


class Agreement(NamedTuple):
  """Correlations of rankings in [-1, 1]; NaN where all generators are equal.

  Attributes:
    names: of the rankings.
    spearman: rank correlation of each two of them.
    kendall: tau-b.
  """

  names: tuple[str, ...]
  spearman: Float[np.ndarray, 'R R']
  kendall: Float[np.ndarray, 'R R']


def rank(values: Sequence[float], *, higher_is_better: bool = True) -> list[int]:
  """Returns ranks from 1, the best; equal values share a rank."""
  if not len(values):
    return []
  signed = np.array(values) if higher_is_better else -np.array(values)
  return ranking.ranks(signed).tolist()


def shared_prompts(tallies: Mapping[str, Tally]) -> list[str]:
  """Returns the prompts that all generators have scores of.

  Raises:
    InputError: a generator has no scores, or there is no such prompt.
  """
  for name, tally in tallies.items():
    if not tally.prompts:
      ((reason, _),) = tally.left_out.most_common(1)
      raise InputError(
        f'{name}: none of its {tally.images:,} images has a score; the first of '
        f'{tally.left_out[reason]:,} ({reason}) is {tally.first[reason][0]}'
      )
  first, *others = tallies.values()
  shared = [one for one in first.prompts if all(one in t.prompts for t in others)]
  if not shared:
    raise no_shared_prompt({name: t.prompts for name, t in tallies.items()})
  return shared


def no_shared_prompt(prompts: Mapping[str, Iterable[str]]) -> InputError:
  """Returns the error for generators without a common prompt, given their prompts."""
  first = (f'{name} {_quoted(next(iter(one), ""))}' for name, one in prompts.items())
  return InputError(
    'no prompt has images of all generators; their first prompts: '
    f'{", ".join(first)}. Make images of the same prompts, written alike'
  )


def compare(
  values: Float[np.ndarray, 'G P S'],
  measures: Sequence[Measure],
  *,
  draws: int = DRAWS,
  seed: int = 0,
) -> list[Comparison]:
  """Compares all generators by each measure.

  Args:
    values: scores by prompt; all finite.
    draws: of the bootstrap; without any, or with one prompt, intervals are NaN.
    seed: of the draws.
  """
  generators, prompts, size = values.shape
  wins = _wins(values, measures)
  both = np.concatenate([values, wins], -1)
  drawn = _draw_means(both, draws if prompts > 1 else 0, seed)
  found = np.concatenate([both.mean(1)[None], drawn])  # [1 + D, G, 2 S]
  found[..., size:] /= max(generators - 1, 1)
  comparisons = []
  for column, measure in enumerate(measures):
    means = _resampled(found[..., column])
    rates = _resampled(found[..., size + column]) if generators > 1 else []
    differences = []
    if rates:
      best = means[int(np.argmax([one.value for one in rates]))]
      differences = [difference(best, mean) for mean in means]
    comparisons.append(
      Comparison(
        measure,
        [one.interval for one in means],
        [one.interval for one in rates],
        differences,
      )
    )
  return comparisons


def agreement(rankings: Mapping[str, Sequence[float]]) -> Agreement | None:
  """Correlates each two rankings; None if there are too few to compare.

  Args:
    rankings: by name, a value of each generator, higher is better.
  """
  values = np.array([*rankings.values()], np.float64)
  if len(values) < 2 or values.shape[1] < FEWEST_GENERATORS:
    return None
  return Agreement(
    tuple(rankings),
    *(
      np.array([[measure(one, other) for other in values] for one in values])
      for measure in (correlation.srcc, correlation.kendall)
    ),
  )


def tally_notes(tallies: Mapping[str, Tally], shared: Sequence[str]) -> list[str]:
  """Returns a sentence for everything that was not compared, or not read entirely."""
  notes = []
  everything = dict.fromkeys(p for tally in tallies.values() for p in tally.prompts)
  for name, tally in tallies.items():
    for reason in LEFT_OUT:
      if number := tally.left_out[reason]:
        notes.append(
          f'{name}: left out of {tally.images:,} images: {number:,} ({reason}), '
          f'{_some(tally.first[reason], number)}'
        )
    if lacking := [prompt for prompt in everything if prompt not in tally.prompts]:
      named = [*map(_quoted, lacking[:_NAMED])]
      notes.append(
        f'{name} has no scores for {len(lacking):,} of {len(everything):,} prompts, '
        f'which are therefore not compared: {_some(named, len(lacking))}'
      )
    for scorer, number in tally.truncated.items():
      notes.append(
        f'{name}: {scorer} did not read the end of prompts that are too long for it: '
        f'{number:,} of {tally.images:,} images'
      )
  if len(shared) == 1:
    notes.append('with one prompt, there are no intervals')
  return notes


def _quoted(prompt: str) -> str:
  """Returns a prompt in quotes, a long one with its end cut off."""
  return repr(prompt if len(prompt) <= _LONGEST else f'{prompt[:_LONGEST]}…')


def _some(named: Sequence[str], number: int) -> str:
  return ', '.join(named) + ', …' * (number > len(named))


def _wins(
  values: Float[np.ndarray, 'G P S'], measures: Sequence[Measure]
) -> Float[np.ndarray, 'G P S']:
  """Returns how many others each generator beats on each prompt, ties as halves.

  Sums of halves are exact, so equal generators get equal win rates.
  """
  signs = np.array([1 if one.higher_is_better else -1 for one in measures])
  ties = np.array([TIE * (one.range[1] - one.range[0]) for one in measures])
  wins = np.zeros_like(values)
  for number, own in enumerate(values):
    for other in np.delete(values, number, 0):
      ahead = signs * (own - other)
      wins[number] += np.where(np.abs(ahead) <= ties, 0.5, ahead > 0)
  return wins


def _draw_means(
  values: Float[np.ndarray, 'G P C'], draws: int, seed: int
) -> Float[np.ndarray, 'D G C']:
  """Returns means over drawn prompts; the same draws as `bootstrap.resample`."""
  generators, prompts, columns = values.shape
  flat = np.ascontiguousarray(values.swapaxes(0, 1)).reshape(prompts, -1)
  drawn = [weights @ flat / prompts for weights in bootstrap.draw(prompts, draws, seed)]
  empty = np.zeros((0, generators * columns))
  return np.concatenate([empty, *drawn]).reshape(draws, generators, columns)


def _resampled(found: Float[np.ndarray, '1+D G']) -> list[Resampled]:
  return [Resampled(float(column[0]), column[1:]) for column in found.T]
