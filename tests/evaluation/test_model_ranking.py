"""Agreement of rankings whose votes are drawn from known strengths."""

import numpy as np
import pytest

from rahf.data.preferences.votes import VoteTable
from rahf.errors import InputError
from rahf.evaluation import model_ranking
from rahf.evaluation.model_ranking import given
from rahf.metrics.ranking import Votes

MODELS = tuple('abcdefgh')
STRENGTHS = dict(zip(MODELS, 1.5 ** np.arange(8.0), strict=True))


def simulate(strengths: dict[str, float], size: int, seed: int = 0) -> VoteTable:
  random = np.random.default_rng(seed)
  values = np.array([*strengths.values()])
  left = random.integers(len(values), size=size)
  right = (left + random.integers(1, len(values), size=size)) % len(values)
  wins = random.random(size) < values[left] / (values[left] + values[right])
  return VoteTable(tuple(strengths), Votes(left, right, wins.astype(float)), ())


def table_of(models: str, *rows: str) -> VoteTable:
  """Returns votes like 'ab', which a won, or 'a=b'."""
  numbers = [(models.index(row[0]), models.index(row[-1])) for row in rows]
  left, right = np.array(numbers).T
  score = np.array([0.5 if '=' in row else 1.0 for row in rows])
  return VoteTable(tuple(models), Votes(left, right, score), ())


def by_name(found: list[model_ranking.Agreement]) -> dict:
  return {one.name: one for one in found}


@pytest.mark.parametrize('method', [model_ranking.bradley_terry, model_ranking.elo])
def test_the_same_opinion_and_its_opposite(method):
  clear = {model: strength**2 for model, strength in STRENGTHS.items()}
  opposite = {model: 1 / strength for model, strength in clear.items()}
  people = method(simulate(clear, 800), draws=100)
  scorer = method(simulate(clear, 800, seed=1), draws=100, stream=1)
  against = method(simulate(opposite, 800, seed=2), draws=100, stream=1)
  assert people.ranks.tolist() == [8, 7, 6, 5, 4, 3, 2, 1]
  for one in model_ranking.agreements(people, scorer):
    assert one.interval.value > 0.95
    assert 0.7 < one.interval.low < one.interval.high <= 1
  for one in model_ranking.agreements(people, against):
    assert one.interval.value < -0.95
    assert -1 <= one.interval.low < one.interval.high < -0.7


def test_correlations_of_given_scores_by_hand():
  one = given({'a': 1.0, 'b': 2.0, 'c': 3.0, 'd': 5.0, 'only here': 9.0})
  other = given({'d': 3.0, 'b': 1.0, 'c': 4.0, 'a': 2.0, 'only there': 0.0})
  found = by_name(model_ranking.agreements(one, other))
  # Ranks 1 2 3 4 and 2 1 4 3; two of six pairs are discordant.
  assert found['Spearman'].interval.value == pytest.approx(1 - 6 * 4 / (4 * 15))
  assert found['Kendall'].interval.value == pytest.approx((4 - 2) / 6)
  expected = np.corrcoef([1, 2, 3, 5], [2, 1, 4, 3])[0, 1]
  assert found['Pearson'].interval.value == pytest.approx(expected)
  assert np.isnan(found['Pearson'].interval.low)


def test_pearson_compares_log_strengths():
  people = model_ranking.bradley_terry(simulate(STRENGTHS, 20_000))
  logs = given({model: np.log(strength) for model, strength in STRENGTHS.items()})
  found = by_name(model_ranking.agreements(people, logs))
  assert found['Pearson'].interval.value > 0.995
  linear = by_name(model_ranking.agreements(people, given(STRENGTHS)))
  assert linear['Pearson'].interval.value < 0.95


def test_scores_of_one_side_have_no_draws():
  people = model_ranking.bradley_terry(simulate(STRENGTHS, 100), draws=100)
  (spearman, *_) = model_ranking.agreements(people, given(STRENGTHS))
  assert spearman.interval.low < spearman.interval.high
  (turned, *_) = model_ranking.agreements(given(STRENGTHS), people)
  assert turned.interval == spearman.interval


def test_orders_of_votes_change_elo_and_its_correlations():
  table = simulate(STRENGTHS, 400)
  people = model_ranking.elo(table, k=32, orders=50)
  (same, *_) = model_ranking.agreements(
    people, model_ranking.elo(table, k=32, stream=1)
  )
  # Both are played in the same orders.
  np.testing.assert_array_equal(same.by_order, np.ones(50))
  (spearman, *_) = model_ranking.agreements(people, given(STRENGTHS))
  assert spearman.by_order.shape == (50,)
  assert spearman.by_order.std() > 0.01
  assert spearman.by_order.mean() < spearman.interval.value
  (alone, *_) = model_ranking.agreements(
    model_ranking.elo(table, orders=0), given(STRENGTHS)
  )
  assert alone.by_order.tolist() == [alone.interval.value]


def test_two_models_cannot_be_correlated():
  with pytest.raises(
    InputError, match='share 2 models, but a correlation needs 3; the'
  ):
    model_ranking.agreements(
      given({'a': 1.0, 'b': 2.0, 'c': 3}), given({'b': 1, 'a': 2})
    )


def test_intervals_are_of_values():
  found = model_ranking.bradley_terry(simulate(STRENGTHS, 2000), draws=200)
  assert sum(one.value for one in found.intervals()) == pytest.approx(1)
  assert all(0 < one.low < one.value < one.high < 1 for one in found.intervals())
  single = model_ranking.bradley_terry(table_of('ab', 'ab'), draws=100)
  assert np.isnan(single.intervals()[0].low)


def test_what_votes_do_not_tell():
  assert model_ranking.doubts(table_of('abc', 'ab', 'bc', 'ca')) == []
  assert model_ranking.doubts(table_of('abc', 'ab', 'b=c', 'c=a')) == []
  assert model_ranking.doubts(table_of('abcd', 'ab', 'ba', 'cd')) == [
    'no votes connect a, b and c, d; their order means nothing'
  ]
  depends = 'how far apart they are depends on the method, not on the votes'
  assert model_ranking.doubts(table_of('abc', 'ab', 'bc', 'cb')) == [
    f'a never lost to, or tied with, any of the other models; {depends}'
  ]
  assert model_ranking.doubts(table_of('abc', 'ab', 'ba', 'bc')) == [
    f'c never won against, or tied with, any of the other models; {depends}'
  ]


def test_without_a_prior_strengths_may_have_no_maximum():
  table = table_of('abc', 'ab', 'ba', 'bc')
  with pytest.raises(InputError, match=r'maximum, as c never won .* a --prior above 0'):
    model_ranking.bradley_terry(table, prior=0)
  connected = table_of('abc', 'ab', 'ba', 'bc', 'cb')
  found = model_ranking.bradley_terry(connected, prior=0, draws=200)
  undefined = np.isnan(found.drawn).all(1)
  assert 50 < undefined.sum() < 200
  assert not np.isnan(found.drawn[~undefined]).any()
  assert not np.isnan(found.intervals()[0].low)
