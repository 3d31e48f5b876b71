"""Confidence intervals and significance by resampling the samples.

A statistic is a function of sample indices: correlations and pooled counts are not
means of what single samples have. The percentile bootstrap (Efron and Tibshirani, 1993,
chapter 13) draws as many samples as there are, with replacement, again and again; two
runs are compared on the same draws (paired).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

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


class Resampled(NamedTuple):
  """A statistic of all samples and of every draw; NaN where they do not define it."""

  value: float
  drawn: Float[np.ndarray, 'D']

  @property
  def interval(self) -> Interval:
    return Interval(self.value, *_bounds(self.drawn))


def resample(
  statistic: Statistic, samples: int, *, draws: int = DRAWS, seed: int = 0
) -> Resampled:
  """Computes a statistic again and again.

  Args:
    statistic: of the samples with the given indices, which may repeat; NaN where they
      do not define it.
    samples: how many there are; of one, or none, all draws would be alike, and there
      is no interval.
    seed: of the draws; the same seed draws the same samples.
  """
  value = statistic(np.arange(samples))
  if samples < 2:
    return Resampled(value, np.zeros(0))
  random = np.random.default_rng(seed)
  drawn = [statistic(random.integers(samples, size=samples)) for _ in range(draws)]
  return Resampled(value, np.array(drawn))


def difference(first: Resampled, second: Resampled) -> Difference:
  """Returns how much larger the second is; both are of the same samples and draws."""
  value, drawn = second.value - first.value, second.drawn - first.drawn
  drawn = drawn[~np.isnan(drawn)]
  if not drawn.size:
    return Difference(value, *_bounds(drawn), float('nan'))
  # The difference itself counts as a draw, so that p is never 0.
  tails = np.sum(drawn <= 0), np.sum(drawn >= 0)
  p = min(1.0, 2 * (min(tails) + 1) / (drawn.size + 1))
  return Difference(value, *_bounds(drawn), float(p))


def _bounds(drawn: Float[np.ndarray, 'D']) -> tuple[float, float]:
  drawn = drawn[~np.isnan(drawn)]
  if not drawn.size:
    return float('nan'), float('nan')
  low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
  return float(low), float(high)
