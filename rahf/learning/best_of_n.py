"""Groups candidate images by prompt, chooses the best, and measures the gain.

Axis letters: P prompts.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rahf.errors import InputError
from rahf.metrics import bootstrap
from rahf.metrics.bootstrap import Interval

VALUE = 'value'


class Candidate(NamedTuple):
  """An image that was made for a prompt.

  Attributes:
    position: of its row in the input, from 0.
    uid: the input's name for it.
    original: the prompt that it competes for and is scored against; '' if the input
      does not say it.
    prompt: what it was made from, perhaps by a template.
    scores: by name; empty if there are none.
    value: what the choice is made by, higher is better; NaN without scores.
    error: why it has no scores, '' if it has.
  """

  position: int
  uid: str
  original: str
  prompt: str
  scores: Mapping[str, float]
  value: float
  error: str = ''

  @property
  def unchanged(self) -> bool:
    """Whether it was made from the original prompt."""
    return self.prompt.strip() == self.original.strip()


class Choice(NamedTuple):
  """The candidates of one prompt.

  Attributes:
    original: the prompt.
    ranked: the best first; candidates of equal value in their order in the input.
    keep: how many of them, from the first, are chosen.
    failed: those without scores.
  """

  original: str
  ranked: list[Candidate]
  keep: int
  failed: list[Candidate]

  @property
  def chosen(self) -> list[Candidate]:
    return self.ranked[: self.keep]


class Gain(NamedTuple):
  """Means of a score over prompts, which all count equally.

  Attributes:
    name: of the score, or VALUE.
    prompts: those with a chosen image.
    best: mean of the chosen images.
    all: mean of all candidates.
    over_all: `best` minus `all`.
    plain_prompts: those that also have candidates made from the unchanged prompt; the
      last two are means over these.
    plain: mean of these candidates.
    over_plain: mean of the chosen images minus `plain`.
  """

  name: str
  prompts: int
  best: float
  all: float
  over_all: Interval
  plain_prompts: int
  plain: float
  over_plain: Interval


def choose(
  candidates: Iterable[Candidate], *, keep: int = 1, minimum: float = -math.inf
) -> list[Choice]:
  """Chooses the best candidates of each prompt.

  Args:
    candidates: in the order of the input; those without a prompt are left out.
    keep: how many to choose for each prompt, at most.
    minimum: candidates of lower value are never chosen.

  Returns:
    The prompts in the order in which they occur first.

  Raises:
    InputError: a candidate without an error has the value NaN.
  """
  groups: dict[str, list[Candidate]] = {}
  for one in candidates:
    if not one.error and math.isnan(one.value):
      raise InputError(f'{one.uid}: its value is NaN, which cannot be compared')
    if one.original:
      groups.setdefault(one.original, []).append(one)
  return [_choose(original, group, keep, minimum) for original, group in groups.items()]


def share_minimum(choices: Sequence[Choice], share: float) -> float:
  """Returns the value from which on the best share of all chosen images is.

  Args:
    choices: of `choose`.
    share: in (0, 1]; at least one image. Of equal values all are in.

  Returns:
    -inf if no image is chosen.
  """
  values = sorted(
    (one.value for choice in choices for one in choice.chosen), reverse=True
  )
  number = max(1, round(share * len(values)))
  return values[number - 1] if values else -math.inf


def _choose(
  original: str, group: Sequence[Candidate], keep: int, minimum: float
) -> Choice:
  ranked = sorted(
    (one for one in group if not one.error),
    key=lambda one: (-one.value, one.position),
  )
  enough = sum(one.value >= minimum for one in ranked)
  failed = [one for one in group if one.error]
  return Choice(original, ranked, min(keep, enough), failed)


def gains(choices: Sequence[Choice]) -> list[Gain]:
  """Measures what choosing gains, by the value and by each score.

  Intervals are from bootstrap draws of the prompts. Prompts without a chosen image are
  left out.
  """
  choices = [one for one in choices if one.keep]
  if not choices:
    return []
  measures: dict[str, Callable[[Candidate], float]] = {VALUE: lambda one: one.value}
  for name in choices[0].ranked[0].scores:
    measures[name] = lambda one, name=name: one.scores[name]
  return [_gain(name, choices, measure) for name, measure in measures.items()]


def _gain(
  name: str, choices: Sequence[Choice], measure: Callable[[Candidate], float]
) -> Gain:
  def means(select: Callable[[Choice], list[Candidate]]) -> Float[np.ndarray, 'P']:
    # NaN for prompts with no such candidate.
    groups = (map(measure, select(one)) for one in choices)
    return np.array([_mean([*group]) for group in groups])

  best, everything = means(lambda one: one.chosen), means(lambda one: one.ranked)
  plain = means(lambda one: [c for c in one.ranked if c.unchanged])
  has_plain = ~np.isnan(plain)
  return Gain(
    name,
    len(choices),
    _mean(best),
    _mean(everything),
    _mean_interval(best - everything),
    int(has_plain.sum()),
    _mean(plain[has_plain]),
    _mean_interval((best - plain)[has_plain]),
  )


def _mean(values: Sequence[float]) -> float:
  return float(np.mean(values)) if len(values) else math.nan


def _mean_interval(values: Float[np.ndarray, 'P']) -> Interval:
  return bootstrap.resample(bootstrap.mean(values), len(values)).interval
