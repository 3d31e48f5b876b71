"""A blind study of which of two generators people prefer, as table 5 of the paper.

Each rater sees every pair of images in an order of their own, with sides drawn at
random, and answers one of ANSWERS. Two kinds of questions check the raters: repeats
show a pair again with sides swapped, and identical pairs show one image twice.

Axis letters: P prompts, R raters.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from rahf.metrics.bootstrap import DRAWS, LEVEL, Interval

# How much better the image on the left is.
ANSWERS = {'much_left': 2, 'left': 1, 'same': 0, 'right': -1, 'much_right': -2}
# Answers of table 5 of the paper, from the new generator much better to much worse.
PAPER = (129, 182, 188, 76, 25)
PAIR, REPEAT, IDENTICAL = KINDS = ('pair', 'repeat', 'identical')


class Question(NamedTuple):
  """One question to one rater.

  Attributes:
    rater: from 1.
    kind: one of KINDS.
    pair: number of the pair.
    swapped: whether the first generator's image is on the right.
  """

  rater: int
  kind: str
  pair: int
  swapped: bool


class Answered(NamedTuple):
  """A question with its answer.

  Attributes:
    prompt: of the pair.
    value: from -2 to 2, how much better the first generator's image is.
  """

  question: Question
  prompt: str
  value: int


class Tally(NamedTuple):
  """What the answers to pairs say about the first generator, and the raters' checks.

  Attributes:
    counts: answers from much better to much worse.
    mean: of the values, from -2 to 2; the interval is of draws of prompts and raters,
      NaN if there is one of each.
    sign_p: of the sign test over the prompts' means, those of 0 left out.
    wilcoxon_p: of Wilcoxon's signed-rank test over them (Pratt's zeros).
    left: share of the answers with a preference that prefer the left; 0.5 if sides do
      not matter.
    left_p: of the binomial test that it is 0.5.
    repeated: share of repeats that were answered with the same direction; NaN if none.
    identical: share of identical pairs that were answered 'same'; NaN if none.
  """

  counts: tuple[int, ...]
  mean: Interval
  sign_p: float
  wilcoxon_p: float
  left: float
  left_p: float
  repeated: float
  identical: float


def plan(
  pairs: int, raters: int, *, repeats: float, identical: float, seed: int
) -> list[Question]:
  """Returns the questions of all raters, in the order in which they are asked.

  Args:
    repeats, identical: how many of these questions there are for each pair, in [0, 1].
  """
  questions = []
  for rater in range(1, raters + 1):
    random = np.random.default_rng([seed, rater])
    swapped = random.random(pairs) < 0.5
    again = random.permutation(pairs)[: round(repeats * pairs)]
    twice = random.permutation(pairs)[: round(identical * pairs)]
    first = [Question(rater, PAIR, i, bool(swapped[i])) for i in range(pairs)]
    first += [Question(rater, IDENTICAL, int(i), False) for i in twice]
    # Repeats come last, when the pair is half forgotten.
    last = [Question(rater, REPEAT, int(i), not swapped[i]) for i in again]
    for part in (first, last):
      questions += [part[i] for i in random.permutation(len(part))]
  return questions


def value_of(question: Question, answer: str) -> int:
  """Returns how much better the first generator's image is, from -2 to 2."""
  return -ANSWERS[answer] if question.swapped else ANSWERS[answer]


def tally(answers: Sequence[Answered], *, seed: int = 0) -> Tally:
  """Counts and tests answers; at least one must be to a pair."""
  pairs = [one for one in answers if one.question.kind == PAIR]
  values = np.array([one.value for one in pairs])
  sided = [-one.value if one.question.swapped else one.value for one in pairs]
  sided = [value for value in sided if value]
  left = sum(value > 0 for value in sided)
  means = _prompt_means(pairs)
  decided = means[means != 0]
  return Tally(
    tuple(int((values == value).sum()) for value in (2, 1, 0, -1, -2)),
    _mean_interval(pairs, seed),
    _binomial(int((decided > 0).sum()), len(decided)),
    float(stats.wilcoxon(means, zero_method='pratt').pvalue) if decided.size else 1.0,
    left / len(sided) if sided else math.nan,
    _binomial(left, len(sided)),
    _repeated(answers),
    _share([not one.value for one in answers if one.question.kind == IDENTICAL]),
  )


def _prompt_means(pairs: Sequence[Answered]) -> Float[np.ndarray, 'P']:
  groups: dict[str, list[int]] = {}
  for one in pairs:
    groups.setdefault(one.prompt, []).append(one.value)
  return np.array([np.mean(group) for group in groups.values()])


def _mean_interval(pairs: Sequence[Answered], seed: int) -> Interval:
  """Draws prompts and raters at once: answers of either depend on each other.

  This "pigeonhole bootstrap" (Owen, 2007) makes intervals rather too wide than too
  narrow.
  """
  prompts, prompt = np.unique([one.prompt for one in pairs], return_inverse=True)
  raters, rater = np.unique([one.question.rater for one in pairs], return_inverse=True)
  values = np.array([one.value for one in pairs], float)
  if len(prompts) == len(raters) == 1:
    return Interval(float(values.mean()), math.nan, math.nan)
  random = np.random.default_rng(seed)
  means = []
  for _ in range(DRAWS):
    weights = np.ones(len(values))
    for names, index in ((prompts, prompt), (raters, rater)):
      # A single prompt or rater cannot show how much they differ.
      if len(names) > 1:
        drawn = random.integers(len(names), size=len(names))
        weights *= np.bincount(drawn, minlength=len(names))[index]
    if weights.sum():
      means.append(np.average(values, weights=weights))
  low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
  return Interval(float(values.mean()), float(low), float(high))


def _repeated(answers: Sequence[Answered]) -> float:
  first = {
    (one.question.rater, one.question.pair): one.value
    for one in answers
    if one.question.kind == PAIR
  }
  same = []
  for one in answers:
    before = first.get((one.question.rater, one.question.pair))
    if one.question.kind == REPEAT and before is not None:
      same.append(np.sign(before) == np.sign(one.value))
  return _share(same)


def _share(found: Sequence[bool]) -> float:
  return float(np.mean(found)) if len(found) else math.nan


def _binomial(successes: int, number: int) -> float:
  return float(stats.binomtest(successes, number).pvalue) if number else 1.0
