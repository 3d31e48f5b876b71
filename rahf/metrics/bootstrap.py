"""Confidence intervals, and which of two runs is better, by resampling the samples.

A statistic is a function of sample indices: correlations and pooled counts are not
means of what single samples have. The percentile bootstrap (Efron and Tibshirani, 1993,
chapter 13) draws as many samples as there are, with replacement, again and again; two
runs are compared on the same draws (paired).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

Statistic = Callable[[Int[np.ndarray, 'N']], float]

DRAWS = 1000
LEVEL = 0.95


class Interval(NamedTuple):
  """A value and what it could have been, had other samples been drawn.

  Attributes:
    value: of all samples.
    low, high: what leaves out half of 1 - LEVEL of the draws on either side; NaN if
      no draw defines the statistic.
  """

  value: float
  low: float
  high: float


class Difference(NamedTuple):
  """How much a statistic grows from one run to another.

  Attributes:
    value, low, high: as in `Interval`.
    p: the chance of a difference like this, or larger, between equals (two-sided).
  """

  value: float
  low: float
  high: float
  p: float

  @property
  def significant(self) -> bool:
    """Whether all of the interval lies on one side of 0."""
    return self.low > 0 or self.high < 0


def interval(
  statistic: Statistic, samples: int, *, draws: int = DRAWS, seed: int = 0
) -> Interval:
  """Returns a statistic and its confidence interval.

  Args:
    statistic: of the samples with the given indices, which may repeat; NaN where they
      do not define it.
    samples: how many there are.
    seed: of the draws; the same seed draws the same samples.
  """
  values = _drawn(statistic, samples, draws, seed)
  return Interval(statistic(np.arange(samples)), *_bounds(values))


def difference(
  first: Statistic,
  second: Statistic,
  samples: int,
  *,
  draws: int = DRAWS,
  seed: int = 0,
) -> Difference:
  """Returns how much larger the second statistic is, for the same samples.

  Args:
    first, second: of two runs, as in `interval`.
  """

  def growth(indices: Int[np.ndarray, 'N']) -> float:
    return second(indices) - first(indices)

  values = _drawn(growth, samples, draws, seed)
  whole = growth(np.arange(samples))
  if not values.size:
    return Difference(whole, *_bounds(values), float('nan'))
  # The observed difference counts as a draw, so that p is never 0.
  tails = np.sum(values <= 0), np.sum(values >= 0)
  p = min(1.0, 2 * (min(tails) + 1) / (values.size + 1))
  return Difference(whole, *_bounds(values), float(p))


def _drawn(statistic: Statistic, samples: int, draws: int, seed: int) -> np.ndarray:
  """Returns the statistic of every draw that defines it."""
  if samples < 1:
    return np.zeros(0)
  random = np.random.default_rng(seed)
  values = [statistic(random.integers(samples, size=samples)) for _ in range(draws)]
  return np.array([value for value in values if not np.isnan(value)])


def _bounds(values: np.ndarray) -> tuple[float, float]:
  if not values.size:
    return float('nan'), float('nan')
  low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
  return float(low), float(high)
