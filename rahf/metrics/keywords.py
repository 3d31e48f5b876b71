"""Precision, recall and F1 of misaligned words (paper, section 4.2).

A word is positive if its label is 0 (misaligned). The paper's figures are pooled:
counts are summed over all samples before dividing.
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
    hits: words correctly marked as misaligned.
    marked: words that the prediction marks as misaligned.
    misaligned: words that are misaligned in truth.
    f1_total: sum of the samples' F1.
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
      unplaced: marks of the decoder on words that the prompt does not have. They count
        as false positives.

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
    """Share of marked words that are misaligned; NaN if none is marked."""
    return _ratio(self.hits, self.marked)

  @property
  def recall(self) -> float:
    """Share of misaligned words that are marked; NaN if none is misaligned."""
    return _ratio(self.hits, self.misaligned)

  @property
  def f1(self) -> float:
    """Harmonic mean of precision and recall, pooled over the samples.

    0 if no marked word is misaligned; NaN if no word is marked or misaligned.
    """
    return _ratio(2 * self.hits, self.marked + self.misaligned)

  @property
  def f1_per_sample(self) -> float:
    """Mean over the samples of each sample's F1.

    A sample without misaligned words and without marks counts as 1. The paper does not
    define this figure.
    """
    return _ratio(self.f1_total, self.samples)

  def values(self) -> dict[str, float]:
    """Returns precision, recall, f1 and f1_per_sample by name, in [0, 1]."""
    names = ('precision', 'recall', 'f1', 'f1_per_sample')
    return {name: getattr(self, name) for name in names}


class Sweep(NamedTuple):
  """Pooled metrics of marking words with p > threshold, for every threshold.

  Attributes:
    threshold: descending midpoints between probabilities that occur; the last is the
      midpoint to 0, or below 0 if a probability is 0.
    precision, recall, f1: in [0, 1], higher is better.
  """

  threshold: Float[np.ndarray, 'C']
  precision: Float[np.ndarray, 'C']
  recall: Float[np.ndarray, 'C']
  f1: Float[np.ndarray, 'C']

  @property
  def average_precision(self) -> float:
    """Average precision, in [0, 1], higher is better.

    The sum over thresholds of precision times gain in recall, without interpolation.
    NaN if no word is misaligned.
    """
    if not len(self.threshold):
      return float('nan')
    return float(self.precision @ np.diff(self.recall, prepend=0.0))


def sweep(labels: Int[np.ndarray, 'T'], p_misaligned: Float[np.ndarray, 'T']) -> Sweep:
  """Returns precision, recall and F1 at every distinct threshold.

  Args:
    labels: of the words of all samples, 1 aligned, 0 misaligned.
    p_misaligned: in [0, 1].

  Returns:
    One threshold per distinct probability; none if no word is misaligned.
  """
  misaligned = np.asarray(labels) == 0
  if not misaligned.any():
    return Sweep(*[np.zeros(0)] * 4)
  order = np.argsort(-np.asarray(p_misaligned), kind='stable')
  p, hits = np.asarray(p_misaligned)[order], np.cumsum(misaligned[order])
  # Below the last threshold, all words are marked.
  below = np.append(p[1:], 0.0 if p[-1] > 0 else -1.0)
  # Words of equal probability are marked together.
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
  """Returns the threshold t for which marking words with p > t has the best pooled F1.

  A threshold of `sweep` that is not below 0, the highest if several are equally good;
  0.5 if no word is misaligned. Arguments are those of `sweep`.
  """
  found = sweep(labels, p_misaligned)
  f1 = np.where(found.threshold >= 0, found.f1, -1.0)
  return max(0.0, float(found.threshold[np.argmax(f1)])) if len(f1) else 0.5


def _ratio(numerator: float | int, denominator: int) -> float:
  return numerator / denominator if denominator else float('nan')
