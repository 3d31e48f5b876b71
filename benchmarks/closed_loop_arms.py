"""The arms of `closed_loop.py`: which images each trains on, and how they compare."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

# Arms that train on images that the generator drew itself.
CHOSEN = ('random', 'shuffled', 'rahf', 'oracle', 'worst')
# Best first, as predicted; equal ones in one group.
PREDICTION = (('oracle',), ('rahf',), ('random', 'shuffled', 'base'), ('worst',))


class Pool(NamedTuple):
  """Images that the generator drew, of P prompts, G of each.

  Attributes:
    rahf: the score that is followed.
    oracle: what the template judge says instead; higher is better.
  """

  rahf: Float[np.ndarray, 'P G']
  oracle: Float[np.ndarray, 'P G']


def choose(arm: str, pool: Pool, keep: int, seed: int) -> Bool[np.ndarray, 'P G']:
  """Returns which images an arm trains on: `keep` of each prompt.

  Every prompt has equally many in every arm, so that only the images differ. Ties are
  broken at random.
  """
  random = np.random.default_rng([seed, CHOSEN.index(arm)])
  values = {
    'random': np.zeros_like(pool.rahf),
    'shuffled': random.permuted(pool.rahf, axis=1),
    'rahf': pool.rahf,
    'oracle': pool.oracle,
    'worst': -pool.rahf,
  }[arm]
  noise = random.random(values.shape)
  rank = np.lexsort((noise, -values), axis=1).argsort(1)
  return rank < keep


class Estimate(NamedTuple):
  """A mean with the ends of its interval."""

  mean: float
  low: float
  high: float


def estimate(
  values: Float[np.ndarray, '*S P'], draws: int = 2000, level: float = 0.95
) -> Estimate:
  """Returns the mean over seeds and prompts, with an interval over both.

  Seeds and prompts are drawn anew, independently, with replacement (a bootstrap of
  crossed factors); with three seeds the interval is a rough one. Without an axis of
  seeds, it is one over prompts.
  """
  random = np.random.default_rng(0)
  values = np.atleast_2d(values)
  seeds, prompts = values.shape
  means = [
    values[random.integers(seeds, size=seeds)][
      :, random.integers(prompts, size=prompts)
    ].mean()
    for _ in range(draws)
  ]
  low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
  return Estimate(float(values.mean()), float(low), float(high))


def shown(values: Float[np.ndarray, '*S P'], sign: str = '') -> str:
  """Returns the text of an `estimate`; with the sign '+', always with a sign."""
  found = estimate(values)
  return f'{found.mean:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]'


def verdicts(values: Mapping[str, Float[np.ndarray, 'S P']]) -> list[list[str]]:
  """Returns a row for each comparison that the prediction makes, and its outcome.

  Args:
    values: a judge's, by arm; higher is better.
  """
  rows = []
  for i, better in enumerate(PREDICTION):
    for worse in PREDICTION[i + 1 : i + 2]:
      for one in better:
        rows += [_compare(values, one, other, above=True) for other in worse]
    for one, other in itertools.pairwise(better):
      rows.append(_compare(values, one, other, above=False))
  return rows


def _compare(
  values: Mapping[str, Float[np.ndarray, 'S P']], one: str, other: str, *, above: bool
) -> list[str]:
  found = estimate(values[one] - values[other])
  if found.low > 0:
    outcome = 'as predicted' if above else f'{one} is better'
  elif found.high < 0:
    outcome = 'refuted' if above else f'{other} is better'
  else:
    outcome = 'no difference shown' if above else 'as predicted: none shown'
  sign = '>' if above else '≈'
  return [
    f'{one} {sign} {other}',
    shown(values[one] - values[other], '+'),
    outcome,
  ]


def goodhart(
  pool: Pool, shares: Float[np.ndarray, 'T']
) -> list[tuple[float, float, float]]:
  """Returns share kept, mean of RAHF's score and of the oracle's, for each share.

  Where a score is followed farther and the other no longer rises, it is fooled.
  """
  order = np.argsort(-pool.rahf, axis=None)
  rahf, oracle = pool.rahf.ravel()[order], pool.oracle.ravel()[order]
  found = []
  for share in shares:
    count = max(1, round(share * len(order)))
    found.append(
      (float(share), float(rahf[:count].mean()), float(oracle[:count].mean()))
    )
  return found


def entropy(tokens: Int[np.ndarray, 'B N']) -> float:
  """Returns the entropy of the codes of all images, in nats."""
  counts = np.bincount(tokens.ravel())
  share = counts[counts > 0] / counts.sum()
  return float(-np.sum(share * np.log(share)))
