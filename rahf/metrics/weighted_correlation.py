"""Correlations of samples that count several times, for many bootstrap draws at once.

Each is `correlation.py`'s of the samples, repeated as often as they count, but of all
draws at once, and sorts or compares the samples only once.

Axis letters: D draws, N samples, U distinct values.
"""

import numpy as np
from jaxtyping import Bool, Float

# Samples whose pairs with all others are in memory at once.
_BLOCK = 256


def plcc(
  x: Float[np.ndarray, 'N'],
  y: Float[np.ndarray, 'N'],
  weights: Float[np.ndarray, 'D N'],
) -> Float[np.ndarray, 'D']:
  """Pearson's linear correlation coefficient, in [-1, 1].

  Args:
    x, y: finite values of the samples.
    weights: how often each sample counts, from 0.

  Returns:
    The coefficient of each draw; NaN if x or y is constant in it, or it is empty.
  """
  return _pearson(x[None], y[None], weights)


def srcc(
  x: Float[np.ndarray, 'N'],
  y: Float[np.ndarray, 'N'],
  weights: Float[np.ndarray, 'D N'],
) -> Float[np.ndarray, 'D']:
  """Spearman's rank correlation coefficient; as `plcc`.

  Equal values share their mean rank.
  """
  return _pearson(_ranks(x, weights), _ranks(y, weights), weights)


def kendall(
  x: Float[np.ndarray, 'N'],
  y: Float[np.ndarray, 'N'],
  weights: Float[np.ndarray, 'D N'],
) -> Float[np.ndarray, 'D']:
  """Kendall's rank correlation tau-b, in [-1, 1]; as `plcc`.

  A pair of samples that count m and n times stands for m n pairs, so that the numbers
  of concordant and of tied pairs are quadratic forms of the weights.
  """
  balance, untied_x, untied_y = np.zeros((3, len(weights)))
  for start in range(0, len(x), _BLOCK):
    block = slice(start, start + _BLOCK)
    signs_x, signs_y = (np.sign(v[:, None] - v[block]) for v in (x, y))
    for total, signs in (
      (balance, signs_x * signs_y),
      (untied_x, np.abs(signs_x)),
      (untied_y, np.abs(signs_y)),
    ):
      total += np.einsum('db,db->d', weights @ signs, weights[:, block])
  defined = (untied_x > 0) & (untied_y > 0)
  return _quotient(balance, np.sqrt(untied_x) * np.sqrt(untied_y), defined)


def _pearson(
  x: Float[np.ndarray, '#D N'],
  y: Float[np.ndarray, '#D N'],
  weights: Float[np.ndarray, 'D N'],
) -> Float[np.ndarray, 'D']:
  counts = np.maximum(weights.sum(1, keepdims=True), 1)
  x, y = (v - (weights * v).sum(1, keepdims=True) / counts for v in (x, y))
  varies = _varies(x, weights) & _varies(y, weights)
  covariance = (weights * x * y).sum(1)
  deviations = (np.sqrt((weights * v * v).sum(1)) for v in (x, y))
  return _quotient(covariance, np.multiply(*deviations), varies)


def _varies(
  values: Float[np.ndarray, 'D N'], weights: Float[np.ndarray, 'D N']
) -> Bool[np.ndarray, 'D']:
  """Returns whether a draw has two values; rounding hides it in a variance."""
  drawn = weights > 0
  lowest = np.min(values, 1, initial=np.inf, where=drawn)
  return np.max(values, 1, initial=-np.inf, where=drawn) > lowest


def _ranks(
  values: Float[np.ndarray, 'N'], weights: Float[np.ndarray, 'D N']
) -> Float[np.ndarray, 'D N']:
  """Returns the mean rank of each sample's repetitions in each draw."""
  if not len(values):
    return np.zeros(weights.shape)
  order = np.argsort(values)
  distinct, first, group = np.unique(
    values[order], return_index=True, return_inverse=True
  )
  del distinct
  sizes = np.add.reduceat(weights[:, order], first, axis=1)
  by_group = np.cumsum(sizes, 1) - (sizes - 1) / 2
  ranks = np.empty(weights.shape)
  ranks[:, order] = by_group[:, group]
  return ranks


def _quotient(
  numerator: Float[np.ndarray, 'D'],
  denominator: Float[np.ndarray, 'D'],
  defined: Bool[np.ndarray, 'D'],
) -> Float[np.ndarray, 'D']:
  defined = defined & (denominator > 0)
  found = np.full(len(numerator), np.nan)
  np.divide(numerator, denominator, out=found, where=defined)
  return np.clip(found, -1, 1)
