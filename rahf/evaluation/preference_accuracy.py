"""How often a scorer prefers the image that people prefer.

There are two protocols, about ten points apart, so that a number without its name says
nothing:

  ties_half      PickScore's (Kirstain et al., 2023). The scorer calls a tie where its
                 probabilities differ by at most a threshold. A pair counts 1 if scorer
                 and people say the same, .5 if exactly one of them says tie, else 0.
  ties_dropped   without the pairs that people call a tie. Equal scores count .5.

A scorer that always says tie has `always_tie` in the first protocol, the floor.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from rahf.metrics import bootstrap
from rahf.metrics.bootstrap import Interval

# Differences of probabilities, of which the best is chosen on a validation split.
THRESHOLDS = np.arange(11) / 10


class JudgedPairs(NamedTuple):
  """What people and a scorer say of N pairs.

  Attributes:
    scores: of both images, higher is better; the softmax of a pair's scores is the
      probability that each is preferred.
    preference: by people, the probability that the first image is preferred: 1, 0, or
      .5 for a tie.
    prompts: of the pairs.
    models: that generated both images.
  """

  scores: Float[np.ndarray, 'N 2']
  preference: Float[np.ndarray, 'N']
  prompts: Sequence[str]
  models: Sequence[tuple[str, str]]

  @property
  def advantage(self) -> Float[np.ndarray, 'N']:
    """The probability of the first image less that of the second, in [-1, 1]."""
    return np.tanh((self.scores[:, 0] - self.scores[:, 1]) / 2)

  @property
  def ties(self) -> Bool[np.ndarray, 'N']:
    """Which pairs people call a tie."""
    return self.preference == 0.5


class ModelRow(NamedTuple):
  """How often the images of a generator are preferred; a tie is half a win.

  Attributes:
    pairs: with an image of this generator, and one of another.
    people, scorer: shares of wins in [0, 1]; the scorer says no ties.
    agreement: accuracy on these pairs, ties dropped; NaN without any.
  """

  model: str
  pairs: int
  people: float
  scorer: float
  agreement: float


def choose_threshold(pairs: JudgedPairs) -> float:
  """Returns the first of THRESHOLDS with the best accuracy, ties counted half."""
  accuracies = [np.mean(points_with_ties(pairs, t)) for t in THRESHOLDS]
  return float(THRESHOLDS[int(np.argmax(accuracies))])


def points_with_ties(pairs: JudgedPairs, threshold: float) -> Float[np.ndarray, 'N']:
  """Returns 1, .5 or 0 for each pair, by the protocol ties_half."""
  return 1 - np.abs(choices(pairs, threshold) - pairs.preference)


def choices(pairs: JudgedPairs, threshold: float) -> Float[np.ndarray, 'N']:
  """Returns what the scorer says: 1 for the first image, 0 for the second, .5 a tie."""
  advantage = pairs.advantage
  decided = np.where(advantage > 0, 1.0, 0.0)
  return np.where(np.abs(advantage) <= threshold, 0.5, decided)


def points_without_ties(pairs: JudgedPairs) -> Float[np.ndarray, 'N']:
  """Returns 1, .5 or 0 for each pair, NaN for ties, by the protocol ties_dropped."""
  said = (np.sign(pairs.advantage) + 1) / 2
  return np.where(pairs.ties, np.nan, 1 - np.abs(said - pairs.preference))


def measure(pairs: JudgedPairs, threshold: float) -> dict[str, Interval]:
  """Returns accuracies in [0, 1] by name, higher is better, with 95 % intervals.

  The intervals come from bootstrap draws of prompts, whose pairs belong together.
  """
  groups = np.unique(np.asarray(pairs.prompts, object), return_inverse=True)[1]
  points = {
    'accuracy/ties_half': points_with_ties(pairs, threshold),
    'accuracy/always_tie': np.where(pairs.ties, 1.0, 0.5),
    'accuracy/ties_dropped': points_without_ties(pairs),
  }
  return {name: _mean_of_prompts(found, groups) for name, found in points.items()}


def by_model(pairs: JudgedPairs) -> list[ModelRow]:
  """Returns a row for each generator, the most preferred by people first."""
  names = np.array(pairs.models, object).reshape(-1, 2)
  between = names[:, 0] != names[:, 1]
  said = (np.sign(pairs.advantage) + 1) / 2
  points = points_without_ties(pairs)
  rows = []
  for model in np.unique(names[between]):
    first, second = (between & (names[:, side] == model) for side in (0, 1))
    people, scorer = (
      np.concatenate([wins[first], 1 - wins[second]]).mean()
      for wins in (pairs.preference, said)
    )
    agreement = points[first | second]
    agreement = agreement[~np.isnan(agreement)]
    rows.append(
      ModelRow(
        model,
        int(first.sum() + second.sum()),
        float(people),
        float(scorer),
        float(agreement.mean()) if len(agreement) else float('nan'),
      )
    )
  return sorted(rows, key=lambda row: -row.people)


def _mean_of_prompts(
  points: Float[np.ndarray, 'N'], groups: Int[np.ndarray, 'N']
) -> Interval:
  """Returns the mean over pairs, drawing prompts; NaN counts for nothing."""
  known = ~np.isnan(points)
  size = int(groups.max()) + 1 if len(groups) else 0
  sums = np.bincount(groups[known], points[known], size)
  counts = np.bincount(groups[known], minlength=size)
  return bootstrap.resample(bootstrap.ratio(sums, counts), size).interval
