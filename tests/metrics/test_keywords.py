"""Keyword metrics, counted by hand and against the paper's figures."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from rahf.metrics.keywords import KeywordMetrics, best_threshold, sweep


@pytest.mark.parametrize(
  ('precision', 'recall', 'f1'), [(629, 330, 0.433), (613, 341, 0.439)]
)
def test_the_papers_f1_is_pooled(precision, recall, f1):
  # Counts with exactly the printed precision and recall, in thousandths.
  metrics = KeywordMetrics(
    hits=precision * recall, marked=1000 * recall, misaligned=1000 * precision
  )
  assert metrics.precision == pytest.approx(precision / 1000)
  assert metrics.recall == pytest.approx(recall / 1000)
  # Printed values are rounded: up to 0.05 points each.
  assert metrics.f1 == pytest.approx(f1, abs=1e-3)


def test_counted_by_hand():
  # "a yellow cat on a mat": yellow and mat are misaligned; yellow and on are marked.
  first = KeywordMetrics.of([1, 0, 1, 1, 1, 0], [1, 0, 1, 0, 1, 1])
  # All aligned, nothing marked.
  second = KeywordMetrics.of([1, 1, 1], [1, 1, 1])
  # One misaligned and found.
  third = KeywordMetrics.of(np.array([0, 1]), np.array([0, 1]))
  assert first.values() == pytest.approx(
    {'precision': 1 / 2, 'recall': 1 / 2, 'f1': 1 / 2, 'f1_per_sample': 1 / 2}
  )
  assert (first + second + third).values() == pytest.approx(
    {
      'precision': 2 / 3,
      'recall': 2 / 3,
      'f1': 2 / 3,
      'f1_per_sample': (1 / 2 + 1 + 1) / 3,
    }
  )


def test_marks_outside_the_prompt_are_false_positives():
  metrics = KeywordMetrics.of([0, 1], [0, 1], unplaced=3)
  assert metrics.precision == pytest.approx(1 / 4)
  assert metrics.recall == 1
  assert metrics.f1 == metrics.f1_per_sample == pytest.approx(2 / 5)
  assert KeywordMetrics.of([1, 1], [1, 1], unplaced=1).f1_per_sample == 0


def test_undefined_cases():
  clean = KeywordMetrics.of([1, 1], [1, 1])
  assert np.isnan([clean.precision, clean.recall, clean.f1]).all()
  assert clean.f1_per_sample == 1
  missed = KeywordMetrics.of([0, 1], [1, 1])
  assert np.isnan(missed.precision)
  assert missed.recall == missed.f1 == missed.f1_per_sample == 0
  assert np.isnan(list(KeywordMetrics().values().values())).all()


def test_any_split_gives_the_same_values():
  rng = np.random.default_rng(0)
  each = [
    KeywordMetrics.of(*rng.integers(0, 2, (2, size)), unplaced=int(size % 2))
    for size in rng.integers(0, 9, 20)
  ]
  whole = sum(each, KeywordMetrics())
  parts = sum(each[13:], KeywordMetrics()) + sum(each[:13], KeywordMetrics())
  assert parts.values() == pytest.approx(whole.values(), abs=1e-12)
  assert whole.samples == 20


@pytest.mark.parametrize(
  ('truth', 'predicted', 'unplaced', 'message'),
  [
    ([1, 0], [1], 0, '2 true labels and 1 predicted'),
    ([1, 2], [1, 0], 0, 'not 2'),
    ([1], [1], -1, 'unplaced is -1'),
  ],
)
def test_wrong_input_is_an_error(truth, predicted, unplaced, message):
  with pytest.raises(ValueError, match=message):
    KeywordMetrics.of(truth, predicted, unplaced=unplaced)


def test_best_threshold_by_trying_all():
  rng = np.random.default_rng(0)
  for _ in range(20):
    labels = (rng.random(30) < 0.7).astype(int)
    # Rounded to get ties.
    p = np.round(np.where(labels, rng.random(30) * 0.8, rng.random(30)), 1)
    found = best_threshold(labels, p)

    def f1(threshold, labels=labels, p=p):
      return KeywordMetrics.of(labels, (p <= threshold).astype(int)).f1

    assert f1(found) == pytest.approx(max(f1(t) for t in np.arange(0.05, 1, 0.1)))


def test_best_threshold_lies_between_probabilities():
  assert best_threshold(np.array([1, 0, 1]), np.array([0.2, 0.9, 0.4])) == 0.65
  assert best_threshold(np.array([1, 1]), np.array([0.2, 0.9])) == 0.5
  assert best_threshold(np.array([0]), np.array([0.2])) == 0.1
  assert best_threshold(np.array([0, 1]), np.array([0.0, 0.0])) == 0.0


@pytest.mark.parametrize('digits', [1, 6])
def test_sweep_equals_scikit_learn(digits):
  rng = np.random.default_rng(0)
  labels = (rng.random(200) < 0.8).astype(int)
  # With one digit, many are equal, and some are 0.
  p = np.round(np.where(labels, rng.random(200) * 0.8, rng.random(200)), digits)
  found = sweep(labels, p)
  # Theirs has ascending thresholds and an extra last point.
  precision, recall, thresholds = sklearn_metrics.precision_recall_curve(labels == 0, p)
  np.testing.assert_allclose(found.precision, precision[-2::-1])
  np.testing.assert_allclose(found.recall, recall[-2::-1])
  assert (found.threshold < thresholds[::-1]).all()
  f1 = 2 * found.precision * found.recall / (found.precision + found.recall)
  np.testing.assert_allclose(found.f1, np.nan_to_num(f1))
  expected = sklearn_metrics.average_precision_score(labels == 0, p)
  assert found.average_precision == pytest.approx(expected)
  for i in (0, len(p) // 50, -1):
    marked = KeywordMetrics.of(labels, (p <= found.threshold[i]).astype(int))
    assert (marked.precision, marked.recall) == pytest.approx(
      (found.precision[i], found.recall[i])
    )


def test_a_sweep_without_misaligned_words():
  found = sweep(np.array([1, 1]), np.array([0.2, 0.9]))
  assert not len(found.threshold)
  assert np.isnan(found.average_precision)
