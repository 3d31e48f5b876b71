"""Scores preference pairs with any model that `rahf.load` opens."""

import collections
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize
from tqdm import tqdm

from rahf.data.images import inputs
from rahf.data.preferences.pair_batches import (
  DroppedPairError,
  preference_of,
  unreadable,
)
from rahf.data.preferences.pair_tally import PairTally, Problem, describe
from rahf.data.preferences.pairs import Pair, PairSplit
from rahf.errors import InputError
from rahf.evaluation.preference_accuracy import JudgedPairs
from rahf.inference.score_stream import Prepared, score_stream
from rahf.inference.scorer import Example, Scorer

# Natural logarithms of the factors on scores that `fit_scale` chooses from.
_LOG_SCALES = (-5.0, 10.0)
# What it returns if no factor above makes people's preferences more likely.
LOWEST_SCALE = float(np.exp(_LOG_SCALES[0]))


class ScoredSplit(NamedTuple):
  """The pairs of a split that could be scored.

  Attributes:
    pairs: with the scores that the model gives.
    ranking_ids: of these pairs.
    problems: number of pairs of the split by what is wrong with them.
  """

  pairs: JudgedPairs
  ranking_ids: Sequence[int | None]
  problems: collections.Counter[Problem]

  def scaled(self, factor: float) -> JudgedPairs:
    """Returns the pairs with their scores multiplied by a factor."""
    return self.pairs._replace(scores=factor * self.pairs.scores)


class _Judgement(NamedTuple):
  """A pair without its images, and what people prefer or why it cannot be used."""

  pair: Pair
  preference: float | DroppedPairError


def score_pairs(
  scorer: Scorer, score: str, split: PairSplit, labelled_only: bool
) -> ScoredSplit:
  """Scores both images of each pair, with a progress bar.

  Pairs without a prompt are scored for an empty one, as in training.

  Args:
    score: its name in `scorer.outputs.scores`.
    labelled_only: whether to leave out pairs with has_label False.

  Raises:
    InputError: a file is damaged, or no pair can be used.
  """
  scores: list[tuple[float, ...]] = []
  kept: list[_Judgement] = []
  tally = PairTally(split.where)
  with tqdm(total=len(split), desc=split.name, unit='pair', disable=None) as bar:
    stream = score_stream(
      {'': scorer},
      split,
      lambda pair: _prepare(scorer, pair, labelled_only),
      bar,
      images_per_row=2,
      scores_only=True,
    )
    for position, (one, images) in enumerate(stream):
      values = tuple(found[''].scores[score] for found in images)
      if not images:
        tally.add(position, one.preference.problem, str(one.preference))
      elif not np.isfinite(values).all():
        reason = f'{score} of its images is {values[0]:g} and {values[1]:g}'
        tally.add(position, Problem.NOT_FINITE, reason)
      else:
        if images[0][''].truncated:
          tally.add(position, Problem.TRUNCATED)
        scores.append(values)
        kept.append(one)
  if not kept:
    raise InputError(
      f'none of the {len(split)} pairs of {split.name} can be used. '
      f'{" ".join(describe(tally.counts))} `python -m rahf.data pairs` says what the '
      'files contain'
    )
  judged = JudgedPairs(
    np.array(scores, np.float64),
    np.array([one.preference for one in kept]),
    [one.pair.prompt for one in kept],
    [one.pair.models for one in kept],
  )
  return ScoredSplit(judged, [one.pair.ranking_id for one in kept], tally.counts)


def fit_scale(pairs: JudgedPairs) -> float:
  """Returns the factor on scores that makes people's preferences most likely.

  For scores that are not logits, such as RAHF's in [0, 1]: the softmax of two of them
  is close to one half, whatever they are.

  Returns:
    A positive number; LOWEST_SCALE if a smaller one would be better, that is, if the
    scores agree with people hardly or not at all.
  """
  difference = pairs.scores[:, 0] - pairs.scores[:, 1]

  def nats(log_factor: float) -> float:
    logit = np.exp(log_factor) * difference
    # The cross-entropy of a logit x is log(1 + exp(x)) - p x.
    return float(np.mean(np.logaddexp(0, logit) - pairs.preference * logit))

  found = optimize.minimize_scalar(nats, bounds=_LOG_SCALES, method='bounded')
  # It comes close to its bounds, but does not reach them.
  at_bound = found.x - _LOG_SCALES[0] < 1e-3
  return LOWEST_SCALE if at_bound else float(np.exp(found.x))


def _prepare(scorer: Scorer, pair: Pair, labelled_only: bool) -> Prepared[_Judgement]:
  without_images = pair._replace(images=(b'', b''))
  try:
    preference = preference_of(pair, labelled_only)
    images = [[_example(scorer, pair, side)] for side in (0, 1)]
  except DroppedPairError as error:
    return Prepared(_Judgement(without_images, error))
  return Prepared(_Judgement(without_images, preference), images)


def _example(scorer: Scorer, pair: Pair, side: int) -> Example:
  try:
    pixels = inputs.read_pixels(pair.images[side])
  except InputError as error:
    raise unreadable(pair, side, error) from None
  row = scorer.tokenise(pair.prompt)
  size = pixels.shape[:2]
  return Example(None, pair.prompt, *size, scorer.resize(pixels), row)
