"""Generators with planted scores: means, wins, ties, ranks, intervals, agreement."""

import itertools

import numpy as np
import pytest

from rahf.errors import InputError
from rahf.evaluation.generator_judgement import (
  TIE,
  Measure,
  agreement,
  compare,
  shared_prompts,
  tally_notes,
)
from rahf.evaluation.generator_tally import (
  NO_PROMPT,
  UNREADABLE,
  ScoredImage,
  Tally,
)
from rahf.metrics import bootstrap, ranking

UP = Measure('x/up', 'a score', (0, 1), 'higher is better', True)
DOWN = Measure('x/down', 'a map', (0, 1), 'higher is worse', False)
# Three generators (rows) on four prompts.
PLANTED = np.array([[0.5, 0.2, 0.9, 0.1], [0.5, 0.2, 0.8, 0.3], [0.1, 0.9, 0.8, 0.2]])
# By hand, for higher is better: ties on the first two prompts (of the first two
# generators) and on the third one (of the last two).
WINS = np.array([[1.5, 0.5, 2, 0], [1.5, 0.5, 0.5, 2], [0, 2, 0.5, 1]])


def values_of(*tables: np.ndarray) -> np.ndarray:
  return np.stack(tables, -1)


def test_wins_means_and_ranks_by_hand():
  up, down = compare(values_of(PLANTED, PLANTED), [UP, DOWN])
  assert [one.value for one in up.means] == pytest.approx([0.425, 0.45, 0.5])
  assert [one.value for one in up.win_rates] == pytest.approx(WINS.sum(1) / 8)
  assert up.ranks == [2, 1, 3]
  assert up.mean_ranks == [3, 2, 1]
  assert [one.value for one in down.win_rates] == pytest.approx(1 - WINS.sum(1) / 8)
  assert down.ranks == [2, 3, 1]
  assert down.mean_ranks == [1, 2, 3]
  # To the best by win rate.
  assert [one.value for one in up.differences] == pytest.approx([-0.025, 0, 0.05])
  assert [one.value for one in down.differences] == pytest.approx([-0.075, -0.05, 0])


def test_equal_generators_share_a_rank_and_rounding_is_no_win():
  random = np.random.default_rng(0)
  first = random.random((1, 30))
  values = np.concatenate([first, first + TIE / 2, first - 2 * TIE])
  (found,) = compare(values_of(values), [UP], draws=0)
  assert [one.value for one in found.win_rates] == [0.75, 0.75, 0.0]
  assert found.ranks == [1, 1, 3]
  wide = UP._replace(range=(-100.0, 100.0))
  (found,) = compare(values_of(values), [wide], draws=0)
  assert found.ranks == [1, 1, 1]


def test_a_planted_order_is_found_by_a_score_in_either_direction():
  random = np.random.default_rng(1)
  quality = np.array([0.3, 0.7, 0.5, 0.1])
  hard = random.normal(0, 0.3, 200)
  noisy = quality[:, None] + hard + random.normal(0, 0.2, (4, 200))
  up, down = compare(values_of(noisy, -noisy), [UP, DOWN])
  assert up.ranks == down.ranks == up.mean_ranks == down.mean_ranks == [3, 1, 2, 4]
  for one, other in zip(up.win_rates, down.win_rates, strict=True):
    assert one == other
  low, high = up.win_rates[3].high, up.win_rates[1].low
  assert low < 0.4 < 0.6 < high


def test_intervals_are_those_of_the_bootstrap_over_prompts():
  values = np.random.default_rng(2).random((3, 50))
  (found,) = compare(values_of(values), [UP], draws=200, seed=7)
  wins = np.zeros((3, 50))
  for one, other in itertools.permutations(range(3), 2):
    wins[one] += values[one] > values[other]

  def resampled(row: np.ndarray) -> bootstrap.Resampled:
    return bootstrap.resample(bootstrap.mean(row), 50, draws=200, seed=7)

  means = [resampled(row) for row in values]
  best = means[found.ranks.index(1)]
  for number in range(3):
    assert found.means[number] == pytest.approx(means[number].interval)
    expected = resampled(wins[number] / 2).interval
    assert found.win_rates[number] == pytest.approx(expected)
    expected = bootstrap.difference(best, means[number])
    assert found.differences[number] == pytest.approx(expected)


def test_the_width_of_an_interval_is_that_of_the_normal_approximation():
  values = np.zeros((1, 400))
  values[0, :100] = 1
  (found,) = compare(values_of(values), [UP])
  (mean,) = found.means
  expected = 2 * 1.96 * np.sqrt(0.25 * 0.75 / 400)
  assert mean.high - mean.low == pytest.approx(expected, rel=0.15)


def test_differences_are_paired():
  """A constant difference is certain, however much prompts differ."""
  hard = np.random.default_rng(3).random(60)
  (found,) = compare(values_of(np.stack([hard, hard - 0.01])), [UP])
  assert found.means[1].high > found.means[0].low
  assert found.differences[1][:3] == pytest.approx((-0.01,) * 3)
  assert found.differences[1].significant


@pytest.mark.parametrize('seed', range(5))
def test_bradley_terry_gives_the_order_of_win_rates(seed):
  values = np.random.default_rng(seed).integers(0, 4, (6, 9)) / 4  # Many ties.
  (found,) = compare(values_of(values), [UP], draws=0)
  wins = np.zeros((6, 6))
  for one, other in itertools.permutations(range(6), 2):
    ahead = values[one] - values[other]
    wins[one, other] = np.sum(ahead > 0) + np.sum(ahead == 0) / 2
  assert found.ranks == ranking.ranks(ranking.bradley_terry(wins)).tolist()


def test_one_prompt_and_one_generator():
  (found,) = compare(np.array([[[0.2]], [[0.4]]]), [UP])
  assert found.ranks == [2, 1]
  assert np.isnan([found.means[0].low, found.win_rates[1].high]).all()
  (found,) = compare(values_of(PLANTED[:1]), [UP])
  assert found.means[0].value == pytest.approx(0.425)
  assert found.means[0].low < 0.425 < found.means[0].high
  assert found.ranks == found.mean_ranks == found.win_rates == found.differences == []


def test_agreement_in_closed_form():
  found = agreement(
    {
      'a': [1, 2, 3, 4],
      'neighbours swapped': [2, 1, 4, 3],
      'opposite': [8, 4, 2, 1],
      'equal': [5, 5, 5, 5],
    }
  )
  assert found.names == ('a', 'neighbours swapped', 'opposite', 'equal')
  unknown = np.nan
  # 1 - 6 sum d^2 / (n (n^2 - 1)); (concordant - discordant) / 6.
  spearman = [[1, 0.6, -1], [0.6, 1, -0.6], [-1, -0.6, 1]]
  kendall = [[1, 1 / 3, -1], [1 / 3, 1, -1 / 3], [-1, -1 / 3, 1]]
  for matrix, expected in ((found.spearman, spearman), (found.kendall, kendall)):
    whole = np.full((4, 4), unknown)
    whole[:3, :3] = expected
    np.testing.assert_allclose(matrix, whole, atol=1e-12)


def test_no_agreement_of_two_generators_or_one_ranking():
  assert agreement({'a': [1, 2], 'b': [2, 1]}) is None
  assert agreement({'a': [1, 2, 3]}) is None


def tally_of(*images: ScoredImage) -> Tally:
  tally = Tally()
  for image in images:
    tally.add(image)
  return tally


def test_images_of_a_prompt_are_averaged_and_others_named():
  first = tally_of(
    ScoredImage('1', 'cat', (1.0, 4.0), ['clip']),
    ScoredImage('2', 'dog', (5.0, 5.0)),
    ScoredImage('3', 'cat', (2.0, 8.0)),
    ScoredImage('4', '', left_out=NO_PROMPT, reason='none'),
    *(ScoredImage(f'{n}', 'cat', left_out=UNREADABLE, reason='bad') for n in '5678'),
  )
  second = tally_of(ScoredImage('1', 'bird', (0, 0)), ScoredImage('2', 'cat', (0, 0)))
  both = {'first': first, 'second': second}
  shared = shared_prompts(both)
  assert shared == ['cat']
  assert first.means(shared).tolist() == [[1.5, 6.0]]
  assert (first.images, first.images_of(shared), second.images_of(shared)) == (8, 2, 1)
  assert tally_notes(both, shared) == [
    "first: left out of 8 images: 1 (no prompt), '4' (none)",
    "first: left out of 8 images: 4 (unreadable), '5' (bad), '6' (bad), '7' (bad), …",
    "first has no scores for 1 of 3 prompts, which are therefore not compared: 'bird'",
    'first: clip did not read the end of prompts that are too long for it: 1 of 8 '
    'images',
    "second has no scores for 1 of 3 prompts, which are therefore not compared: 'dog'",
    'with one prompt, there are no intervals',
  ]


def test_long_prompts_are_named_by_their_start():
  tallies = {
    'a': tally_of(ScoredImage('1', 'b' * 90, (0.0,)), ScoredImage('2', 'cat', (0.0,))),
    'b': tally_of(ScoredImage('1', 'cat', (0.0,))),
  }
  assert f"not compared: '{'b' * 80}…'" in tally_notes(tallies, ['cat'])[0]


def test_nothing_to_compare():
  cat, dog = (tally_of(ScoredImage('1', name, (0.0,))) for name in ('cat', 'dog'))
  with pytest.raises(InputError, match="their first prompts: a 'cat', b 'dog'"):
    shared_prompts({'a': cat, 'b': dog})
  unreadable = ScoredImage('x.png', 'cat', left_out=UNREADABLE, reason='no PNG')
  bad = tally_of(ScoredImage('0', '', left_out=NO_PROMPT), unreadable, unreadable)
  # The kind that most are of.
  message = r"b: none of its 3 images .* 2 \(unreadable\) is 'x\.png' \(no PNG\)"
  with pytest.raises(InputError, match=message):
    shared_prompts({'a': cat, 'b': bad})
