"""Ranks models by votes between two of them: Bradley–Terry and Elo.

Axis letters: V votes, M models, D draws of the bootstrap, O orders of the votes.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import special, stats
from scipy.sparse import csgraph

# Imaginary votes of each model against an average one, half of them won.
PRIOR = 0.1
# Elo: the largest change by one vote, the first rating, and the random orders.
K = 4.0
START = 1000.0
ORDERS = 50

# Elements of the largest temporary arrays, unless one draw needs more.
_ELEMENTS = 1 << 26
_MOST_STEPS = 1000


class Votes(NamedTuple):
  """Votes between two different models, which are numbered from 0.

  Attributes:
    left, right: the two models.
    score: of the left one: 1 if it won, 0 if it lost, .5 for a tie.
  """

  left: Int[np.ndarray, 'V']
  right: Int[np.ndarray, 'V']
  score: Float[np.ndarray, 'V']


def win_matrix(votes: Votes, models: int) -> Float[np.ndarray, 'M M']:
  """Returns how often each model (row) won against each (column).

  A tie is half a win for both.
  """
  cells = np.concatenate(
    [votes.left * models + votes.right, votes.right * models + votes.left]
  )
  won = np.concatenate([votes.score, 1 - votes.score])
  return np.bincount(cells, won, models**2).reshape(models, models)


def bradley_terry(
  wins: Float[np.ndarray, '*batch M M'], *, prior: float = PRIOR
) -> Float[np.ndarray, '*batch M']:
  """Returns the most likely log strengths; their exponentials sum to 1.

  A model of strength p beats one of strength q with probability p / (p + q) (Bradley
  and Terry, 1952). Newton's method on the concave log likelihood.

  Args:
    wins: as of `win_matrix`.
    prior: so many imaginary votes of each model against one of strength 1, half of them
      won. They keep strengths finite, and draw them together.

  Returns:
    Log strengths to about 1e-10. NaN without a prior if there is no maximum, that is,
    if `undefeated` finds models.

  Raises:
    ArithmeticError: the prior is too small beside the votes for this precision.
  """
  if not prior:
    exists = np.array([not undefeated(one).size for one in _flat(wins)], bool)
    exists = exists.reshape(wins.shape[:-2])
    if not exists.all():
      found = np.full(wins.shape[:-1], np.nan)
      found[exists] = _newton(wins[exists], prior)
      return found
  return _newton(wins, prior)


def _newton(wins: np.ndarray, prior: float) -> np.ndarray:
  models = wins.shape[-1]
  games = wins + wins.mT
  diagonal = np.arange(models)
  # Without a prior, strengths have no scale; this keeps the mean of their logs at 0.
  free = 0 if prior else games.mean((-1, -2), keepdims=True)
  log_strengths = np.zeros(wins.shape[:-1])
  for _ in range(_MOST_STEPS):
    beats = special.expit(log_strengths[..., :, None] - log_strengths[..., None, :])
    beats_average = special.expit(log_strengths)
    gradient = (wins * beats.mT - wins.mT * beats).sum(-1)
    gradient += prior * (0.5 - beats_average)
    curvature = games * beats * beats.mT
    hessian = free - curvature
    hessian[..., diagonal, diagonal] += curvature.sum(-1) + prior * (
      beats_average * (1 - beats_average)
    )
    step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
    # The largest change of a log odds. Damped by it, the likelihood grows from any
    # start (Sun and Tran-Dinh, Generalized self-concordant functions, 2019).
    change = np.abs(step[..., :, None] - step[..., None, :]) * (games > 0)
    change = np.maximum(change.max((-1, -2)), np.abs(step).max(-1) * (prior > 0))
    damping = np.log1p(change) / np.maximum(change, np.finfo(float).tiny)
    log_strengths += step * damping[..., None]
    # Convergence is quadratic: the next step would be the square of this one.
    if np.all(change < 1e-6):
      # Rounded so that models with equal votes are equal.
      return special.log_softmax(np.round(log_strengths, 10), -1)
  raise ArithmeticError(f'no convergence with prior {prior}')


def bradley_terry_draws(
  votes: Votes, models: int, *, draws: int, prior: float = PRIOR, seed=0
) -> Iterator[Float[np.ndarray, 'M']]:
  """Yields the log strengths of every bootstrap draw of the votes, NaN if undefined.

  Args:
    seed: whatever `np.random.default_rng` takes.
  """
  # Equal votes are drawn together, by their number.
  halves = (2 * votes.score).astype(int)
  kinds, counts = np.unique(
    (votes.left * models + votes.right) * 3 + halves, return_counts=True
  )
  left, right = np.divmod(kinds // 3, models)
  score = (kinds % 3) / 2
  random = np.random.default_rng(seed)
  chunk = max(1, _ELEMENTS // (64 * models**2))
  for begin in range(0, draws, chunk):
    size = min(chunk, draws - begin)
    drawn = random.multinomial(counts.sum(), counts / counts.sum(), size)
    wins = np.zeros((size, models, models))
    for one, number in zip(wins, drawn, strict=True):
      np.add.at(one, (left, right), number * score)
      np.add.at(one, (right, left), number * (1 - score))
    yield from bradley_terry(wins, prior=prior)


def elo(
  votes: Votes,
  models: int,
  *,
  k: float = K,
  start: float = START,
  orders: int = ORDERS,
  seed=0,
) -> Float[np.ndarray, 'O M']:
  """Returns Elo ratings after all votes, for each of several random orders of them.

  The winner of a vote gains k times the probability that it would have lost, with odds
  of 10 for 400 points; a tie is half a win.

  Args:
    orders: number of random orders; 0 for one, that of the votes.
    seed: of the orders, whatever `np.random.default_rng` takes. The same seed shuffles
      the same number of votes in the same way.
  """
  random = np.random.default_rng(seed)
  as_given = np.arange(len(votes.score), dtype=np.int32)
  repeats = max(orders, 1)
  chunk = max(1, _ELEMENTS // as_given.size)
  ratings = []
  for begin in range(0, repeats, chunk):
    picks = np.tile(as_given, (min(chunk, repeats - begin), 1))
    if orders:
      random.permuted(picks, axis=1, out=picks)
    ratings.append(_play(votes, picks, models, k, start))
  return np.concatenate(ratings)


def elo_draws(
  votes: Votes,
  models: int,
  *,
  draws: int,
  k: float = K,
  start: float = START,
  orders: int = ORDERS,
  seed=0,
) -> Iterator[Float[np.ndarray, 'M']]:
  """Yields the ratings of every bootstrap draw of the votes, as means over orders.

  Arguments are those of `elo`; with 0 orders, drawn votes keep their order.
  """
  random = np.random.default_rng(seed)
  size = len(votes.score)
  repeats = max(orders, 1)
  chunk = max(1, _ELEMENTS // (4 * size * repeats))
  for begin in range(0, draws, chunk):
    number = min(chunk, draws - begin)
    picks = random.integers(size, size=(number, 1, size), dtype=np.int32)
    if orders:
      picks = np.repeat(picks, orders, axis=1)
      random.permuted(picks, axis=2, out=picks)
    else:
      picks.sort()
    found = _play(votes, picks.reshape(-1, size), models, k, start)
    yield from found.reshape(number, repeats, models).mean(1)


def _play(
  votes: Votes,
  picks: Int[np.ndarray, 'C V'],
  models: int,
  k: float,
  start: float,
) -> Float[np.ndarray, 'C M']:
  """Returns the ratings after the picked votes, for C sequences of them at once."""
  sequences, size = picks.shape
  ratings = np.full(sequences * models, float(start))
  first = models * np.arange(sequences)
  sides = np.stack([votes.left, votes.right], axis=-1)
  gain = np.empty(sequences)
  block = max(1, (1 << 20) // sequences)
  for begin in range(0, size, block):
    picked = np.ascontiguousarray(picks[:, begin : begin + block].T)
    # Two models of every sequence, vote by vote.
    places = np.moveaxis(sides[picked], -1, 1) + first
    for place, score in zip(places, votes.score[picked], strict=True):
      both = ratings.take(place)
      np.subtract(*both, out=gain)
      gain *= math.log(10) / 400
      special.expit(gain, out=gain)
      np.subtract(score, gain, out=gain)
      gain *= k
      both[0] += gain
      both[1] -= gain
      ratings[place] = both
  return ratings.reshape(sequences, models)


def ranks(scores: Float[np.ndarray, 'M']) -> Int[np.ndarray, 'M']:
  """Returns ranks from 1, the highest score; equal scores share the best of theirs."""
  return stats.rankdata(-scores, method='min').astype(int)


def groups(wins: Float[np.ndarray, 'M M']) -> Int[np.ndarray, 'M']:
  """Returns a number for each model, equal for those that votes connect."""
  return csgraph.connected_components(wins > 0, directed=False)[1]


def undefeated(wins: Float[np.ndarray, 'M M']) -> Int[np.ndarray, 'n']:
  """Returns models that never lost to, nor tied with, any other; not all models.

  There are some unless wins lead from every model to every other, directly or through
  others. Then likelihood grows with their strength without end (Ford, 1957).
  """
  number, labels = csgraph.connected_components(wins > 0, connection='strong')
  for label in range(number if number > 1 else 0):
    inside = labels == label
    if not wins[np.ix_(~inside, inside)].any():
      return np.flatnonzero(inside)
  return np.zeros(0, int)


def _flat(wins: np.ndarray) -> np.ndarray:
  return wins.reshape(-1, *wins.shape[-2:])
