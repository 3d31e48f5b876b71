"""AUC-Judd with ties; test_saliency.py has its published values."""

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from rahf.metrics import saliency


def test_auc_judd_of_ties_equals_the_mean_of_mits_jitter(goldens, pair):
  # Both maps are symmetric, so most values occur four times.
  draws = goldens['definition_matrix_64x64']['AUC_Judd gt>0 MIT jitter 1e-7, 5 seeds']
  area = saliency.auc_judd(*pair)
  assert min(draws) < area < max(draws)
  assert area == pytest.approx(np.mean(draws), abs=2 * stats.sem(draws))


def judd_by_loop(prediction: np.ndarray, fixated: np.ndarray) -> float:
  """Computes AUC-Judd like MIT's code without jitter."""
  thresholds = np.sort(prediction[fixated])[::-1]
  n, pixels = thresholds.size, prediction.size
  tp, fp = [0.0], [0.0]
  for i, threshold in enumerate(thresholds, start=1):
    tp.append(i / n)
    fp.append((np.sum(prediction >= threshold) - i) / (pixels - n))
  return float(np.trapezoid([*tp, 1.0], [*fp, 1.0]))


@pytest.mark.parametrize(
  ('values', 'fixated'),
  [
    ((1, 0, 0, 0, 0, 0), (0, 1, 1, 0, 0, 0)),
    ((2, 2, 1, 1, 1, 0), (1, 0, 1, 1, 0, 0)),
    ((3, 1, 1, 1, 2, 2), (1, 1, 0, 0, 0, 1)),
    ((1, 1, 1, 0, 0, 0), (1, 1, 1, 0, 0, 0)),
    ((4, 3, 2, 2, 1, 0), (0, 1, 0, 0, 1, 1)),
  ],
)
def test_auc_judd_of_ties_is_the_mean_over_all_orders(values, fixated):
  prediction, fixated = np.array(values, float), np.array(fixated, bool)
  areas = [
    judd_by_loop(prediction + 1e-3 * np.array(order), fixated)
    for order in itertools.permutations(range(len(values)))
  ]
  found = saliency.auc_judd(prediction[None], fixated[None].astype(float))
  assert found == pytest.approx(np.mean(areas), rel=1e-12)


@pytest.mark.parametrize('steps', [2, 5, 20, 10_000])
def test_auc_judd_exceeds_the_area_of_the_steps_by_half_a_fixation(steps):
  rng = np.random.default_rng(steps)
  prediction, truth = rng.integers(steps, size=(30, 40)), rng.random((30, 40)) < 0.2
  # Only a fixation has the lowest value: all other pixels are above it.
  prediction[truth.nonzero()[0][0], truth.nonzero()[1][0]] = -1
  area = metrics.roc_auc_score(truth.ravel(), prediction.ravel())
  found = saliency.auc_judd(prediction.astype(float), truth.astype(float))
  assert found == pytest.approx(area + 0.5 / truth.sum(), rel=1e-12)


def test_auc_judd_of_a_missed_box():
  prediction, truth = np.zeros((2, 20, 30))
  prediction[3, 3] = 1
  truth[5:9, 5:15] = 1
  # One bright pixel comes first; then 40 fixations with 1/41 of the 559 other zeros
  # before each of them and at the end.
  gap = 559 / 41
  expected = (0.5 + gap * (np.arange(40) + 0.5).sum() + gap * 40) / (40 * 560)
  assert expected == pytest.approx(0.5, abs=0.02)
  assert saliency.auc_judd(prediction, truth) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('convention', ['rahf', 'pysaliency'])
def test_auc_judd_is_in_range(convention):
  rng = np.random.default_rng(0)
  for _ in range(200):
    truth = (rng.random((5, 6)) < rng.random()).astype(float)
    prediction = rng.integers(rng.integers(2, 6), size=(5, 6)) / 4
    area = saliency.auc_judd(prediction, truth, convention=convention)
    assert np.isnan(area) or 0 <= area <= 1
    if 0 < truth.sum() < truth.size:
      assert saliency.auc_judd(truth, truth, convention=convention) == 1


@pytest.mark.parametrize(('convention', 'digits'), [('mit', 1), ('rahf', 16)])
def test_auc_judd_equals_a_loop_over_thresholds(convention, digits):
  rng = np.random.default_rng(0)
  truth = (rng.random((32, 40)) < 0.2).astype(np.float32)
  # In steps of a tenth, most values are tied, for which MIT's code has no order.
  prediction = np.round(rng.random((32, 40)) * 0.5 + truth * 0.3, digits)
  expected = judd_by_loop(prediction, truth > 0)
  found = saliency.auc_judd(prediction, truth, convention=convention)
  assert found == pytest.approx(expected, rel=1e-12)
