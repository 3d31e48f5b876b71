"""Rankings against evalica's and choix' results, closed forms and planted truth."""

import csv
import json

import numpy as np
import pytest
from scipy import special

from rahf.metrics import ranking
from rahf.metrics.ranking import Votes

SCORES = {'left': 1.0, 'tie': 0.5, 'right': 0.0}


def votes_of(*rows: tuple[int, int, float]) -> Votes:
  left, right, score = zip(*rows, strict=True)
  return Votes(np.array(left), np.array(right), np.array(score))


def simulate(strengths: np.ndarray, size: int, ties: float = 0.0, seed=0) -> Votes:
  """Returns votes on random pairs, by the model of Bradley and Terry."""
  random = np.random.default_rng(seed)
  left = random.integers(len(strengths), size=size)
  right = (left + random.integers(1, len(strengths), size=size)) % len(strengths)
  wins = random.random(size) < strengths[left] / (strengths[left] + strengths[right])
  return Votes(left, right, np.where(random.random(size) < ties, 0.5, wins))


@pytest.fixture(scope='module')
def food(assets):
  """evalica's votes and its scores by algorithm, with the models as numbers."""
  folder = assets / 'preferences' / 'evalica'
  with (folder / 'food.csv').open() as file:
    rows = list(csv.DictReader(file))
  models = sorted({row['left'] for row in rows} | {row['right'] for row in rows})
  votes = votes_of(
    *(
      (models.index(row['left']), models.index(row['right']), SCORES[row['winner']])
      for row in rows
    )
  )
  goldens: dict[str, list[float]] = {}
  with (folder / 'food-golden.csv').open() as file:
    for row in sorted(csv.DictReader(file), key=lambda row: row['item']):
      goldens.setdefault(row['algorithm'], []).append(float(row['score']))
  return votes, goldens


def test_wins_are_counted_as_by_evalica(food):
  votes, goldens = food
  assert ranking.win_matrix(votes, 5).sum(1).tolist() == goldens['counting']


def test_elo_of_evalica(food):
  """K 4, start 1000, ties .5, in the order of the file."""
  votes, goldens = food
  (ratings,) = ranking.elo(votes, 5, k=4, start=1000, orders=0)
  assert ratings.tolist() == goldens['elo']


def test_strengths_of_evalica(food):
  votes, goldens = food
  found = np.exp(ranking.bradley_terry(ranking.win_matrix(votes, 5), prior=0))
  np.testing.assert_allclose(found, goldens['bradley_terry'], atol=1e-6)
  assert found.sum() == pytest.approx(1, abs=1e-12)


def test_strengths_of_wikipedias_example(assets):
  golden = json.loads((assets / 'preferences' / 'goldens.json').read_text())
  golden = golden['bradley_terry_wikipedia']
  wins = np.zeros((4, 4))
  for winner, loser, times in golden['wins']:
    wins['ABCD'.index(winner), 'ABCD'.index(loser)] = times
  found = ranking.bradley_terry(wins, prior=0)
  np.testing.assert_allclose(
    found - found.mean(), golden['log_strengths'], atol=1e-8, rtol=0
  )


@pytest.mark.parametrize(('won', 'lost'), [(1, 1), (3, 1), (2.5, 0.5), (1e6, 1)])
def test_two_models_have_the_ratio_of_their_wins(won, lost):
  found = ranking.bradley_terry(np.array([[0, won], [lost, 0]]), prior=0)
  assert found[0] - found[1] == pytest.approx(np.log(won / lost), abs=1e-9)


@pytest.mark.parametrize('prior', [1e-6, 0.1, 1.0, 50.0])
def test_the_prior_is_votes_against_an_average_model(prior):
  wins = ranking.win_matrix(simulate(np.array([0.6, 0.3, 0.08, 0.02]), 60), 4)
  wins[0, 1:] += 5
  wins[1:, 0] = 0  # Undefeated.
  found = ranking.bradley_terry(wins, prior=prior)
  with_average = np.full((5, 5), prior / 2)
  with_average[:4, :4] = wins
  with_average[4, 4] = 0
  expected = ranking.bradley_terry(with_average, prior=0)[:4]
  np.testing.assert_allclose(
    found, special.log_softmax(expected), atol=1e-8 * max(1, 1e-4 / prior)
  )
  assert np.exp(found).sum() == pytest.approx(1, abs=1e-12)


def test_a_large_prior_makes_all_equal():
  wins = np.array([[0.0, 5, 5], [1, 0, 5], [0, 0, 0]])
  distances = [np.ptp(ranking.bradley_terry(wins, prior=p)) for p in (0.1, 1, 10, 1e6)]
  assert distances == sorted(distances, reverse=True)
  assert distances[-1] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize('prior', [1e-6, 0.1, 1e6])
@pytest.mark.parametrize('size', [1.0, 1e9])
def test_convergence_for_votes_that_tell_little(prior, size):
  """Chains of models that always win, and groups without votes in between."""
  chain = size * np.eye(20, k=1)
  apart = np.kron(np.eye(2), np.array([[0, size], [1, 0]]))
  found = ranking.bradley_terry(chain, prior=prior)
  assert (np.diff(found) <= 0).all()
  assert found[0] > found[-1]
  found = ranking.bradley_terry(apart, prior=prior)
  np.testing.assert_allclose(found[:2], found[2:], atol=1e-8)
  if prior < 1:
    assert found[0] - found[1] == pytest.approx(np.log(size), abs=0.2)


def test_without_a_prior_there_may_be_no_strengths():
  beaten = np.array([[0.0, 1, 1], [0, 0, 2], [0, 1, 0]])
  assert ranking.undefeated(beaten).tolist() == [0]
  assert ranking.undefeated(beaten.T).tolist() == [1, 2]
  tied = beaten.copy()
  tied[1, 0] = 0.5
  assert ranking.undefeated(tied).size == 0
  both = ranking.bradley_terry(np.stack([beaten, tied]), prior=0)
  assert np.isnan(both[0]).all()
  np.testing.assert_array_equal(both[1], ranking.bradley_terry(tied, prior=0))
  assert np.isnan(ranking.bradley_terry(beaten, prior=0)).all()


def test_groups_that_votes_connect():
  wins = ranking.win_matrix(votes_of((0, 2, 1.0), (3, 1, 0.0), (2, 4, 0.5)), 5)
  assert ranking.groups(wins).tolist() == [0, 1, 0, 1, 0]


def test_models_with_equal_votes_share_a_rank():
  votes = votes_of(*((a, b, 1.0) for a in (0, 1) for b in (2, 3, 4)), (0, 1, 0.5))
  found = ranking.bradley_terry(ranking.win_matrix(votes, 5))
  assert ranking.ranks(found).tolist() == [1, 1, 3, 3, 3]


def test_strengths_and_ratings_give_the_order_back():
  strengths = 1.6 ** np.arange(8.0)[np.random.default_rng(1).permutation(8)]
  votes = simulate(strengths, 6000, ties=0.1)
  expected = ranking.ranks(strengths).tolist()
  found = ranking.bradley_terry(ranking.win_matrix(votes, 8))
  assert ranking.ranks(found).tolist() == expected
  # A tie in ten draws strengths together a little.
  np.testing.assert_allclose(np.ptp(found), 0.9 * np.log(1.6**7), rtol=0.1)
  assert ranking.ranks(ranking.elo(votes, 8).mean(0)).tolist() == expected


def test_intervals_of_strengths_cover_the_truth():
  """In 95 of 100 cases, as claimed; with few draws, to be fast."""
  strengths = np.array([0.4, 0.3, 0.2, 0.1])
  covered = np.zeros(4)
  for seed in range(100):
    votes = simulate(strengths, 300, seed=seed)
    drawn = [*ranking.bradley_terry_draws(votes, 4, draws=200, seed=seed)]
    low, high = np.exp(np.quantile(drawn, (0.025, 0.975), axis=0))
    covered += (low <= strengths) & (strengths <= high)
  assert (covered >= 86).all()
  assert covered.mean() <= 99


def test_draws_of_strengths_are_reproducible_and_vary(monkeypatch):
  votes = simulate(np.array([3.0, 2.0, 1.0]), 50, ties=0.2)
  first, again, other = (
    np.stack([*ranking.bradley_terry_draws(votes, 3, draws=40, seed=seed)])
    for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(first, again)
  assert (first != other).all()
  assert (first.std(0) > 0.01).all()
  # The same in several parts.
  monkeypatch.setattr(ranking, '_ELEMENTS', 64 * 9 * 16)
  parts = np.stack([*ranking.bradley_terry_draws(votes, 3, draws=40, seed=1)])
  np.testing.assert_allclose(parts, first, atol=1e-9)


def test_ratings_after_one_and_two_votes():
  expected = [1016, 984, 1000]
  assert ranking.elo(votes_of((0, 1, 1.0)), 3, k=32).tolist() == [expected] * 50
  tie = ranking.elo(votes_of((0, 1, 1.0), (1, 0, 0.5)), 2, k=32, orders=0)
  share = 1 / (1 + 10 ** (-32 / 400))
  expected = [1016 + 32 * (0.5 - share), 984 - 32 * (0.5 - share)]
  np.testing.assert_allclose(tie, [expected], rtol=1e-14)
  shifted = ranking.elo(votes_of((0, 1, 1.0)), 2, k=32, start=0, orders=0)
  assert shifted.tolist() == [[16, -16]]


def test_ratings_depend_on_the_order():
  votes = votes_of(*[(0, 1, 1.0)] * 30, *[(0, 1, 0.0)] * 30)
  (as_given,) = ranking.elo(votes, 2, k=32, orders=0)
  assert as_given[0] < 900
  by_order = ranking.elo(votes, 2, k=32, orders=200, seed=3)
  assert by_order.shape == (200, 2)
  assert np.unique(by_order[:, 0]).size > 100
  np.testing.assert_allclose(by_order.sum(1), 2000)
  # Without an order, wins are equal.
  assert by_order.mean(0) == pytest.approx([1000, 1000], abs=15)
  np.testing.assert_array_equal(
    by_order, ranking.elo(votes, 2, k=32, orders=200, seed=3)
  )


def test_ratings_of_every_order_are_those_of_shuffled_votes(monkeypatch):
  votes = simulate(np.array([4.0, 3.0, 2.0, 1.0]), 40, ties=0.2)
  found = ranking.elo(votes, 4, orders=7, seed=5)
  picks = np.random.default_rng(5).permuted(np.tile(np.arange(40), (7, 1)), axis=1)
  for order, ratings in zip(picks, found, strict=True):
    shuffled = Votes(*(values[order] for values in votes))
    (alone,) = ranking.elo(shuffled, 4, orders=0)
    np.testing.assert_array_equal(ratings, alone)
  monkeypatch.setattr(ranking, '_ELEMENTS', 80)
  np.testing.assert_array_equal(found, ranking.elo(votes, 4, orders=7, seed=5))


def test_draws_of_ratings():
  certain = votes_of(*[(0, 1, 1.0)] * 20)
  value = ranking.elo(certain, 2).mean(0)
  drawn = np.stack([*ranking.elo_draws(certain, 2, draws=9)])
  np.testing.assert_allclose(drawn, np.tile(value, (9, 1)))
  # With 0 orders, drawn votes keep their order: the latest decide.
  turned = votes_of(*[(0, 1, 1.0)] * 30, *[(0, 1, 0.0)] * 30)
  drawn = np.stack([*ranking.elo_draws(turned, 2, draws=50, k=32, orders=0)])
  assert (drawn[:, 0] < 950).all()
  drawn = np.stack([*ranking.elo_draws(turned, 2, draws=50, k=32)])
  assert 10 < np.count_nonzero(drawn[:, 0] < 1000) < 40


def test_draws_of_ratings_vary_as_ratings_of_new_votes():
  strengths = np.array([3.0, 2.0, 1.0])
  new = np.stack(
    [
      ranking.elo(simulate(strengths, 200, seed=seed), 3, orders=20).mean(0)
      for seed in range(60)
    ]
  )
  votes = simulate(strengths, 200, seed=100)
  drawn = np.stack([*ranking.elo_draws(votes, 3, draws=100, orders=20)])
  np.testing.assert_allclose(drawn.std(0), new.std(0), rtol=0.35)
