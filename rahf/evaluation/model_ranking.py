"""Rankings of models by votes, with intervals, and how well two of them agree.

Intervals are from bootstrap draws of the votes (`metrics/bootstrap.py`); votes of one
person or on one prompt count as independent.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from rahf.data.preferences.votes import VoteTable
from rahf.errors import InputError
from rahf.metrics import correlation, ranking
from rahf.metrics.bootstrap import Interval, Resampled

# That two rankings must share; two models always correlate with 1 or -1.
FEWEST_MODELS = 3
CORRELATIONS = {
  'Spearman': correlation.srcc,
  'Pearson': correlation.plcc,
  'Kendall': correlation.kendall,
}


class Ranking(NamedTuple):
  """Scores of models; higher is better.

  Axis letters: M models, D draws of the bootstrap, O orders of the votes.

  Attributes:
    method: 'bradley_terry', 'elo' or 'given'.
    models: names.
    scores: log strengths whose exponentials sum to 1, Elo ratings, or given scores.
    drawn: scores by draw; NaN in draws that do not define them. No draws if D is 0.
    by_order: for Elo, ratings after each order of the votes, whose mean is `scores`.
      Otherwise O is 1.
  """

  method: str
  models: tuple[str, ...]
  scores: Float[np.ndarray, 'M']
  drawn: Float[np.ndarray, 'D M']
  by_order: Float[np.ndarray, 'O M']

  @property
  def ranks(self) -> Int[np.ndarray, 'M']:
    """Ranks from 1, the best; equal scores share a rank."""
    return ranking.ranks(self.scores)

  def intervals(self) -> list[Interval]:
    """Returns each model's value: its strength, Elo rating or given score."""
    values, drawn = self.scores, self.drawn
    if self.method == 'bradley_terry':
      values, drawn = np.exp(values), np.exp(drawn)
    return [
      Resampled(float(value), column).interval
      for value, column in zip(values, drawn.T, strict=True)
    ]


def bradley_terry(
  table: VoteTable,
  *,
  prior: float = ranking.PRIOR,
  draws: int = 0,
  seed: int = 0,
  stream: int = 0,
) -> Ranking:
  """Ranks models by Bradley–Terry strengths; see `ranking.bradley_terry`.

  Args:
    draws: of the bootstrap.
    seed, stream: of the draws; rankings to be correlated need different streams.

  Raises:
    InputError: without a prior, no strengths are most likely.
  """
  size = len(table.models)
  wins = ranking.win_matrix(table.votes, size)
  if not prior and (reason := _one_sided(table, wins)):
    raise InputError(
      f'without a prior, strengths have no maximum, as {reason}; give a --prior above 0'
    )
  scores = ranking.bradley_terry(wins, prior=prior)
  drawn = ranking.bradley_terry_draws(
    table.votes, size, draws=draws, prior=prior, seed=(seed, stream)
  )
  drawn = _collect(drawn, draws, table)
  return Ranking('bradley_terry', table.models, scores, drawn, scores[None])


def elo(
  table: VoteTable,
  *,
  k: float = ranking.K,
  start: float = ranking.START,
  orders: int = ranking.ORDERS,
  draws: int = 0,
  seed: int = 0,
  stream: int = 0,
) -> Ranking:
  """Ranks models by Elo ratings, as means over random orders; see `ranking.elo`.

  Args:
    draws: of the bootstrap, each of which is played in so many orders, too.
    seed: of orders and draws.
    stream: of the draws; rankings to be correlated need different ones.
  """
  size = len(table.models)
  options = {'k': k, 'start': start, 'orders': orders}
  by_order = ranking.elo(table.votes, size, seed=seed, **options)
  drawn = ranking.elo_draws(
    table.votes, size, draws=draws, seed=(seed, stream), **options
  )
  return Ranking(
    'elo', table.models, by_order.mean(0), _collect(drawn, draws, table), by_order
  )


def given(scores: Mapping[str, float]) -> Ranking:
  """Ranks models by known scores, without intervals."""
  values = np.array([*scores.values()])
  return Ranking(
    'given', tuple(scores), values, np.zeros((0, len(scores))), values[None]
  )


def doubts(table: VoteTable) -> list[str]:
  """Returns a sentence for everything in the order of models that votes do not tell."""
  wins = ranking.win_matrix(table.votes, len(table.models))
  groups = ranking.groups(wins)
  if groups.any():
    parts = (_named(table, np.flatnonzero(groups == one)) for one in np.unique(groups))
    return [f'no votes connect {" and ".join(parts)}; their order means nothing']
  if reason := _one_sided(table, wins):
    return [f'{reason}; how far apart they are depends on the method, not on the votes']
  return []


class Agreement(NamedTuple):
  """A correlation of two rankings, in [-1, 1].

  Attributes:
    name: key of CORRELATIONS.
    interval: of the scores.
    by_order: of the Elo ratings after each order; only one element for other methods.
  """

  name: str
  interval: Interval
  by_order: Float[np.ndarray, 'O']


def shared_models(first: Sequence[str], second: Sequence[str]) -> list[str]:
  """Returns the models of the first ranking that are in the second, too.

  Raises:
    InputError: they are fewer than FEWEST_MODELS.
  """
  models = [model for model in first if model in second]
  if len(models) < FEWEST_MODELS:
    raise InputError(
      f'the rankings share {len(models)} models, but a correlation needs '
      f'{FEWEST_MODELS}; the first has {", ".join(first):.200}, the second '
      f'{", ".join(second):.200}'
    )
  return models


def agreements(first: Ranking, second: Ranking) -> list[Agreement]:
  """Correlates two rankings over the models that are in both.

  Votes of the two are drawn independently. Orders of votes correspond by their number.

  Raises:
    InputError: they share fewer than FEWEST_MODELS models.
  """
  models = shared_models(first.models, second.models)
  first, second = _only(first, models), _only(second, models)
  found = []
  for name, measure in CORRELATIONS.items():
    drawn = np.zeros(0)
    if len(first.drawn) or len(second.drawn):
      one, other = (
        ranked.drawn if len(ranked.drawn) else ranked.scores[None]
        for ranked in (first, second)
      )
      drawn = _correlate(measure, one, other)
    resampled = Resampled(measure(first.scores, second.scores), drawn)
    by_order = _correlate(measure, first.by_order, second.by_order)
    found.append(Agreement(name, resampled.interval, by_order))
  return found


def _only(whole: Ranking, models: Sequence[str]) -> Ranking:
  """Returns the scores of some of the models."""
  columns = [whole.models.index(model) for model in models]
  return whole._replace(
    models=tuple(models),
    scores=whole.scores[columns],
    drawn=whole.drawn[:, columns],
    by_order=whole.by_order[:, columns],
  )


def _correlate(
  measure: Callable[..., float],
  first: Float[np.ndarray, '#R M'],
  second: Float[np.ndarray, '#R M'],
) -> Float[np.ndarray, 'r']:
  """Correlates row by row, without rows that are undefined."""
  rows = zip(*np.broadcast_arrays(first, second), strict=True)
  return np.array([measure(*row) for row in rows if np.isfinite(row).all()])


def _collect(drawn, draws: int, table: VoteTable) -> Float[np.ndarray, 'D M']:
  """Returns the scores of all draws, with a progress bar."""
  if len(table.votes.score) < 2:  # All draws would be equal.
    drawn, draws = iter(()), 0
  bar = tqdm(drawn, 'draw votes', draws, unit='draw', leave=False, disable=None)
  return np.stack([*bar]) if draws else np.zeros((0, len(table.models)))


def _one_sided(table: VoteTable, wins: Float[np.ndarray, 'M M']) -> str:
  """Says which models only win against all others, or only lose; '' if none."""
  best = ranking.undefeated(wins)
  others = np.setdiff1d(np.arange(len(table.models)), best)
  if not best.size:
    return ''
  if best.size <= others.size:
    return f'{_named(table, best)} never lost to, or tied with, any of the other models'
  return (
    f'{_named(table, others)} never won against, or tied with, any of the other models'
  )


def _named(table: VoteTable, numbers: Int[np.ndarray, 'n']) -> str:
  names = [table.models[number] for number in itertools.islice(numbers, 5)]
  return ', '.join(names) + ', …' * (len(numbers) > 5)
