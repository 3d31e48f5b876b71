"""Accuracies of preferences by their definitions."""

import numpy as np
import pytest

from rahf.data.preferences.pair_tally import Problem
from rahf.evaluation import preference_accuracy as accuracy
from rahf.evaluation.preference_accuracy import JudgedPairs
from rahf.evaluation.preference_tables import make_report


def make_pairs(advantages, preference, prompts=None, models=None) -> JudgedPairs:
  """Makes pairs whose probabilities differ by the given advantages."""
  second = -2 * np.arctanh(np.array(advantages, float))
  number = len(advantages)
  return JudgedPairs(
    np.stack([np.zeros(number), second], 1),
    np.array(preference, float),
    prompts or [str(i) for i in range(number)],
    models or [('a', 'b')] * number,
  )


def test_ties_count_half():
  pairs = make_pairs([0.5, 0.5, -0.5, 0.05, 0.05, -0.05], [1, 0, 0.5, 0.5, 1, 0])
  found = accuracy.points_with_ties(pairs, 0.1)
  np.testing.assert_array_equal(found, [1, 0, 0.5, 1, 0.5, 0.5])
  # Without a threshold, a tie is said where both scores are equal.
  equal = make_pairs([0.0, 0.0], [0.5, 1])
  np.testing.assert_array_equal(accuracy.points_with_ties(equal, 0.0), [1, 0.5])


def test_ties_of_people_are_dropped():
  pairs = make_pairs([0.5, -0.1, 0.9, 0.0], [1, 1, 0.5, 0])
  found = accuracy.points_without_ties(pairs)
  np.testing.assert_array_equal(found, [1, 0, np.nan, 0.5])


def test_the_first_best_threshold_is_chosen():
  # .2 to .4 are equally good: right about the first two, a tie for the third.
  pairs = make_pairs([0.5, -0.5, 0.15], [1, 0, 0.5])
  assert accuracy.choose_threshold(pairs) == 0.2
  # Always saying tie is best where people always do.
  assert accuracy.choose_threshold(make_pairs([0.95], [0.5])) == 1.0


def test_probabilities_are_those_of_the_softmax():
  scores = np.array([[1.0, 3.0], [21.5, 20.0]])
  pairs = JudgedPairs(scores, np.ones(2), ['', ''], [('a', 'b')] * 2)
  p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
  np.testing.assert_allclose(pairs.advantage, p[:, 0] - p[:, 1], rtol=1e-12)


def test_the_floor_is_always_tie():
  pairs = make_pairs([0.3] * 4, [1, 0, 0.5, 0.5])
  assert accuracy.measure(pairs, 0.0)['accuracy/always_tie'].value == 0.75
  # A threshold of 1 says tie always.
  ties = accuracy.measure(pairs, 1.0)['accuracy/ties_half']
  assert ties.value == 0.75


def test_intervals_draw_prompts_not_pairs():
  """Pairs of one prompt that agree tell no more than one of them."""
  random = np.random.default_rng(0)
  wins = random.integers(0, 2, 40)
  alone = make_pairs([0.5] * 40, wins)
  together = make_pairs(
    [0.5] * 400, np.repeat(wins, 10), [str(i // 10) for i in range(400)]
  )
  one, ten = (
    accuracy.measure(pairs, 0.0)['accuracy/ties_dropped'] for pairs in (alone, together)
  )
  assert one.value == pytest.approx(ten.value)
  assert ten.high - ten.low == pytest.approx(one.high - one.low, rel=0.1)
  assert one.low < one.value < one.high


def test_generators():
  models = [('a', 'b'), ('b', 'a'), ('a', 'c'), ('a', 'a')]
  pairs = make_pairs([0.5, 0.5, 0.5, 0.5], [1, 0, 0.5, 1], models=models)
  rows = {row.model: row for row in accuracy.by_model(pairs)}
  assert list(rows) == ['a', 'c', 'b']
  assert rows['a'][1:] == (3, pytest.approx(2.5 / 3), pytest.approx(2 / 3), 0.5)
  assert rows['b'][1:] == (2, 0.0, 0.5, 0.5)
  assert rows['c'][1:3] == (1, 0.5)
  assert np.isnan(rows['c'].agreement)


def test_report_names_its_protocol():
  pairs = make_pairs([0.5, 0.05, -0.5], [1, 0.5, 1])
  problems = {Problem.UNREADABLE: 2, Problem.UNLABELLED: 4, Problem.TRUNCATED: 1}
  report = make_report(
    pairs,
    problems=problems,
    labelled_only=True,
    threshold=(0.1, 'dev'),
    split='test',
    ceilings={'accuracy/ties_half': 0.9, 'accuracy/ties_dropped': 0.95},
  )
  text = report.text('Title')
  assert '3 pairs, 1 of them ties.' in text
  assert 'not used: 4 with has_label False, 2 with an unreadable image.' in text
  assert 'only the beginning: 1.' in text
  rows = [line.strip('| ').split('|') for line in text.splitlines()[2:7]]
  best = [row[-1].strip() for row in rows]
  assert best == ['best possible, %', best[1], '90.0', '–', '95.0']
  assert 'at most 0.1, chosen on dev' in text
  assert 'has_label False are left out' in text
  metrics = report.metrics()
  assert metrics['accuracy/ties_half'] == pytest.approx(2 / 3)
  assert metrics['accuracy/ties_dropped'] == 0.5
  assert (metrics['pairs/dropped'], metrics['pairs/unlabelled']) == (2, 4)
