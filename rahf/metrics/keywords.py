"""Precision, recall and F1 of the words marked as misaligned (paper, section 4.2).

A word is positive where its label is 0, misaligned. The paper's figures are pooled:
the counts of all samples are added up before anything is divided.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class KeywordMetrics:
  """Word counts over samples; merging is `+`, `KeywordMetrics()` is neutral.

  Attributes:
    hits: words rightly marked as misaligned.
    marked: all words marked as misaligned by the prediction.
    misaligned: all words that are misaligned in truth.
    f1_total: sum of the samples' own F1.
    samples: number of samples.
  """

  hits: int = 0
  marked: int = 0
  misaligned: int = 0
  f1_total: float = 0.0
  samples: int = 0

  @classmethod
  def of(
    cls,
    truth: Sequence[int] | Int[np.ndarray, 'T'],
    predicted: Sequence[int] | Int[np.ndarray, 'T'],
    *,
    unplaced: int = 0,
  ) -> 'KeywordMetrics':
    """Returns the counts of one sample.

    Args:
      truth: label of each word of the prompt, 1 aligned, 0 misaligned.
      predicted: label of each word as predicted.
      unplaced: marks that the decoder put on words that the prompt does not have.
        They count as marked, and are wrong.

    Raises:
      ValueError: the lengths differ, a label is neither 0 nor 1, or `unplaced` is
        negative.
    """
    if len(truth) != len(predicted):
      raise ValueError(
        f'{len(truth)} true labels and {len(predicted)} predicted; '
        'pass one for each word of the prompt in both'
      )
    for label in (*truth, *predicted):
      if label not in (0, 1):
        raise ValueError(f'a label is 1 (aligned) or 0 (misaligned), not {label}')
    if unplaced < 0:
      raise ValueError(f'unplaced is {unplaced}; pass a count')
    marked = unplaced + sum(label == 0 for label in predicted)
    misaligned = sum(label == 0 for label in truth)
    hits = sum(t == 0 and p == 0 for t, p in zip(truth, predicted, strict=True))
    f1 = 2 * hits / (marked + misaligned) if marked + misaligned else 1.0
    return cls(int(hits), int(marked), int(misaligned), f1, 1)

  def __add__(self, other: 'KeywordMetrics') -> 'KeywordMetrics':
    return KeywordMetrics(
      self.hits + other.hits,
      self.marked + other.marked,
      self.misaligned + other.misaligned,
      self.f1_total + other.f1_total,
      self.samples + other.samples,
    )

  @property
  def precision(self) -> float:
    """Share of the marked words that are misaligned, NaN if none is marked."""
    return _ratio(self.hits, self.marked)

  @property
  def recall(self) -> float:
    """Share of the misaligned words that are marked, NaN if none is misaligned."""
    return _ratio(self.hits, self.misaligned)

  @property
  def f1(self) -> float:
    """Harmonic mean of precision and recall, pooled over the samples.

    0 if words are marked or misaligned but none rightly; NaN if there is neither.
    """
    return _ratio(2 * self.hits, self.marked + self.misaligned)

  @property
  def f1_per_sample(self) -> float:
    """Mean over the samples of each sample's F1.

    A sample with no misaligned word and no mark counts 1: nothing was to be found
    and nothing was. The paper does not define this figure; the definition is ours.
    """
    return _ratio(self.f1_total, self.samples)

  def values(self) -> dict[str, float]:
    """Returns precision, recall, f1 and f1_per_sample by name, in [0, 1]."""
    names = ('precision', 'recall', 'f1', 'f1_per_sample')
    return {name: getattr(self, name) for name in names}


class Sweep(NamedTuple):
  """What marking the words with p > threshold gives, pooled over all samples.

  Attributes:
    threshold: descending, each halfway between two probabilities that occur; the last
      halfway to 0, or below it if a probability is 0.
    precision, recall, f1: in [0, 1], higher is better.
  """

  threshold: Float[np.ndarray, 'C']
  precision: Float[np.ndarray, 'C']
  recall: Float[np.ndarray, 'C']
  f1: Float[np.ndarray, 'C']

  @property
  def average_precision(self) -> float:
    """Mean of the precision over the recall gained, in [0, 1], higher is better.

    The sum over the thresholds of precision times gain in recall, without
    interpolation. NaN if no word is misaligned.
    """
    if not len(self.threshold):
      return float('nan')
    return float(self.precision @ np.diff(self.recall, prepend=0.0))


def sweep(labels: Int[np.ndarray, 'T'], p_misaligned: Float[np.ndarray, 'T']) -> Sweep:
  """Returns precision and recall at every threshold that makes a difference.

  Args:
    labels: of the words of all samples, 1 aligned, 0 misaligned.
    p_misaligned: in [0, 1].

  Returns:
    A threshold for every different probability; none if no word is misaligned.
  """
  misaligned = np.asarray(labels) == 0
  if not misaligned.any():
    return Sweep(*[np.zeros(0)] * 4)
  order = np.argsort(-np.asarray(p_misaligned), kind='stable')
  p, hits = np.asarray(p_misaligned)[order], np.cumsum(misaligned[order])
  # Below the last, all words are marked.
  below = np.append(p[1:], 0.0 if p[-1] > 0 else -1.0)
  # Words of equal probability are marked all or none.
  last = np.flatnonzero(below < p)
  hits, marked, total = hits[last], last + 1, misaligned.sum()
  return Sweep(
    (p[last] + below[last]) / 2,
    hits / marked,
    hits / total,
    2 * hits / (marked + total),
  )


def best_threshold(
  labels: Int[np.ndarray, 'T'], p_misaligned: Float[np.ndarray, 'T']
) -> float:
  """Returns the t for which marking the words with p > t has the highest pooled F1.

  It is one of `sweep`, but not below 0; of equally good ones the highest. 0.5 if no
  word is misaligned. For the arguments see `sweep`.
  """
  found = sweep(labels, p_misaligned)
  f1 = np.where(found.threshold >= 0, found.f1, -1.0)
  return max(0.0, float(found.threshold[np.argmax(f1)])) if len(f1) else 0.5


def _ratio(numerator: float | int, denominator: int) -> float:
  return numerator / denominator if denominator else float('nan')
