"""Bootstrap confidence intervals and significance tests.

A statistic is a function of how often each sample counts, since correlations and pooled
counts are not means over samples. The percentile bootstrap (Efron and Tibshirani, 1993,
chapter 13) repeatedly draws as many samples as there are, with replacement; two runs
are compared on the same draws (paired).

Axis letters: D draws, N samples.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# From how often each sample counts in each draw to a value for each draw, NaN where it
# is undefined.
Statistic = Callable[[Float[np.ndarray, 'D N']], Float[np.ndarray, 'D']]

DRAWS = 1000
# With fewer draws, the ends of an interval are mostly chance.
FEWEST_DRAWS = 100
# Limits the memory for draws of many samples.
_AT_ONCE = 2**22
LEVEL = 0.95


class Interval(NamedTuple):
  """A value with its confidence interval.

  Attributes:
    value: on all samples.
    low, high: the quantiles (1 - LEVEL) / 2 and (1 + LEVEL) / 2 of the draws; NaN if no
      draw defines the statistic.
  """

  value: float
  low: float
  high: float


class Difference(NamedTuple):
  """The difference of a statistic between two runs.

  Attributes:
    value, low, high: as in `Interval`.
    p: two-sided p-value of the difference.
  """

  value: float
  low: float
  high: float
  p: float

  @property
  def significant(self) -> bool:
    """Whether the interval excludes 0."""
    return self.low > 0 or self.high < 0


class Resampled(NamedTuple):
  """A statistic on all samples and on every draw; NaN where it is undefined."""

  value: float
  drawn: Float[np.ndarray, 'D']

  @property
  def interval(self) -> Interval:
    return Interval(self.value, *_bounds(self.drawn))


def check_draws(draws: int) -> str | None:
  """Returns the problem with a number of draws that a user chose, or None."""
  enough = draws == 0 or draws >= FEWEST_DRAWS
  return None if enough else f'must be 0, or at least {FEWEST_DRAWS}'


def resample(
  statistic: Statistic, samples: int, *, draws: int = DRAWS, seed: int = 0
) -> Resampled:
  """Computes a statistic on many bootstrap draws.

  Args:
    statistic: of the samples.
    samples: their number; with fewer than two, all draws would be equal, and there is
      no interval.
    seed: of the draws; the same seed draws the same samples.
  """
  value = evaluate(statistic, samples)
  if samples < 2:
    return Resampled(value, np.zeros(0))
  found = [statistic(weights) for weights in draw(samples, draws, seed)]
  return Resampled(value, np.concatenate([np.zeros(0), *found]))


def evaluate(statistic: Statistic, samples: int) -> float:
  """Returns a statistic of all samples, each of which counts once."""
  return float(statistic(np.ones((1, samples)))[0])


def draw(samples: int, draws: int, seed: int) -> Iterator[Float[np.ndarray, 'd N']]:
  """Yields how often each sample counts in each draw, some draws at a time."""
  random = np.random.default_rng(seed)
  size = max(_AT_ONCE // max(samples, 1), 1)
  for start in range(0, draws, size):
    # Matrix products of integers are slow.
    weights = np.empty((min(size, draws - start), samples))
    for row in weights:
      row[:] = np.bincount(random.integers(samples, size=samples), minlength=samples)
    yield weights


def mean(values: Float[np.ndarray, 'N']) -> Statistic:
  """Returns the mean as a statistic; NaN counts for nothing."""
  known = ~np.isnan(values)
  return ratio(np.where(known, values, 0), known)


def ratio(
  numerators: Float[np.ndarray, 'N'], denominators: Float[np.ndarray, 'N']
) -> Statistic:
  """Returns the quotient of two sums over the samples as a statistic."""

  def statistic(weights: Float[np.ndarray, 'D N']) -> Float[np.ndarray, 'D']:
    below = weights @ np.asarray(denominators, np.float64)
    found = np.full(len(weights), np.nan)
    return np.divide(weights @ numerators, below, out=found, where=below != 0)

  return statistic


def difference(first: Resampled, second: Resampled) -> Difference:
  """Returns second minus first; both must use the same samples and draws."""
  value, drawn = second.value - first.value, second.drawn - first.drawn
  drawn = drawn[~np.isnan(drawn)]
  if not drawn.size:
    return Difference(value, *_bounds(drawn), float('nan'))
  # The observed difference counts as a draw, so that p is never 0.
  tails = np.sum(drawn <= 0), np.sum(drawn >= 0)
  p = min(1.0, 2 * (min(tails) + 1) / (drawn.size + 1))
  return Difference(value, *_bounds(drawn), float(p))


def _bounds(drawn: Float[np.ndarray, 'D']) -> tuple[float, float]:
  drawn = drawn[~np.isnan(drawn)]
  if not drawn.size:
    return float('nan'), float('nan')
  low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
  return float(low), float(high)
