"""Saliency metrics against published values and closed forms."""

import json

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from rahf.metrics import saliency

# pysaliency's test fixtures: (x, y) of the fixations on two 40x40 images.
FIXATIONS = (
  ((0, 10), (1, 11), (2, 12), (2, 12), (2, 12)),
  ((1, 21), (5, 25), (3, 33)),
)


@pytest.fixture(scope='module')
def goldens(assets):
  return json.loads((assets / 'saliency' / 'saliency_goldens.json').read_text())


@pytest.fixture(scope='module')
def published(goldens):
  return goldens['pysaliency (MIT; tests/test_saliency_map_models.py)']


@pytest.fixture(scope='module')
def gaussian():
  y, x = np.mgrid[:40, :40]
  return np.exp(-0.5 * ((x - 20) ** 2 + (y - 20) ** 2) / np.hypot(40, 40))


@pytest.fixture(scope='module')
def pair():
  """The prediction and truth of the goldens' definition matrix."""
  y, x = np.mgrid[:64, :64]
  prediction = 0.02 + 0.9 * np.exp(-((x - 20) ** 2 + (y - 30) ** 2) / 128)
  truth = np.floor(255 * np.exp(-((x - 24) ** 2 + (y - 26) ** 2) / 72)) / 255
  return prediction, truth


def fixation_map(fixations):
  fixated = np.zeros((40, 40))
  for x, y in fixations:
    fixated[y, x] = 1
  return fixated


def gold_map(fixations):
  return gaussian_filter(fixation_map(fixations), 10, mode='reflect')


def test_nss_equals_pysaliency(published, gaussian):
  values = [
    saliency.nss(gaussian, fixation_map([xy]), convention=saliency.PYSALIENCY)
    for fixations in FIXATIONS
    for xy in fixations
  ]
  expected = published['NSS_per_fixation (population std)']
  np.testing.assert_allclose(values, expected, rtol=1e-11)


def test_cc_equals_pysaliency(published, gaussian):
  mean = np.mean([saliency.cc(gaussian, gold_map(f)) for f in FIXATIONS])
  assert mean == pytest.approx(published['CC(G,gold)'], abs=5e-8)


def test_sim_equals_pysaliency(published, gaussian):
  mean = np.mean([saliency.sim(gaussian, gold_map(f)) for f in FIXATIONS])
  assert mean == pytest.approx(published['SIM(G,gold) no min-max'], abs=5e-7)
  flat = saliency.sim(gaussian, np.ones((40, 40)))
  assert flat == pytest.approx(published['SIM(G,C) no min-max'], abs=5e-6)


def test_kld_equals_pysaliency(published, gaussian):
  # Maps over 0 everywhere: where the epsilon goes does not show at these digits.
  mean = np.mean([saliency.kld(gaussian, gold_map(f)) for f in FIXATIONS])
  expected = published['KLD(pred=G,gt=gold) minimum_value 1e-20']
  assert mean == pytest.approx(expected, rel=1e-11)
  flat = saliency.kld(gaussian, np.ones((40, 40)))
  assert flat == pytest.approx(published['KLD(pred=G,gt=C)'], rel=1e-11)


def test_auc_judd_equals_pysaliency(published, gaussian):
  # pysaliency counts a pixel as often as it is fixated, which no mask can say, so
  # the area is asked for with the list of fixated values.
  areas = []
  for fixations in FIXATIONS:
    fixated = np.array([gaussian[y, x] for x, y in fixations])
    values = np.concatenate([gaussian[fixation_map(fixations) == 0], fixated])
    areas.append(saliency._judd_area(values, fixated, saliency.PYSALIENCY))
  (expected,) = (v for k, v in published.items() if k.startswith('AUC_Judd no jitter'))
  assert np.mean(areas) == pytest.approx(expected, rel=1e-12)


def test_auc_judd_equals_fixatons(goldens):
  prediction = np.array([[0.1, 0.2], [0.3, 1.0]])
  truth = np.array([[0.0, 0.0], [0.0, 1.0]])
  golden = goldens['FixaTons tests (2x2)']
  area = saliency.auc_judd(prediction, truth, convention=saliency.FIXATONS)
  assert area == pytest.approx(golden['published AUC_Judd jitter=False'], rel=1e-12)
  assert saliency.auc_judd(prediction, truth) == pytest.approx(
    golden['matlab/pysaliency definition'], rel=1e-12
  )


def test_definition_matrix(goldens, pair):
  golden = goldens['definition_matrix_64x64']
  values = saliency.MapMetrics.of(*pair).values()
  assert np.isnan(values.pop('mse_empty'))
  assert values == pytest.approx(
    {
      'mse': golden['MSE'],
      'cc': golden['CC'],
      'kld': golden['KLD MIT eps=2.2204e-16'],
      'sim': golden['SIM no min-max (RAHF public repo, pysaliency)'],
      'nss': golden['NSS gt>0 sample std (MIT, RAHF public)'],
      'auc_judd': golden['AUC_Judd gt>0 MIT no jitter'],
    },
    rel=1e-11,
  )


def test_definition_matrix_of_other_conventions(goldens, pair):
  golden = goldens['definition_matrix_64x64']
  fixatons, torch = saliency.FIXATONS, saliency.RAHF_TORCH
  values = {
    'KLD Zanca eps=1e-12': saliency.kld(*pair, convention=fixatons),
    'KLD RAHF public eps=1e-8': saliency.kld(*pair, convention=torch),
    'NSS gt>0 population std (pysaliency)': saliency.nss(
      *pair, convention=saliency.PYSALIENCY
    ),
    'NSS gt>127 sample std': saliency.nss(*pair, threshold=127 / 255),
    'AUC_Judd gt>0 Zanca/RAHF-public no jitter': saliency.auc_judd(
      *pair, convention=torch
    ),
  }
  # The goldens add the epsilon in another order; 1e-9 still tells all five apart.
  assert values == pytest.approx({name: golden[name] for name in values}, rel=2e-9)


def test_auc_judd_equals_a_loop_over_thresholds():
  rng = np.random.default_rng(0)
  truth = (rng.random((32, 40)) < 0.2).astype(np.float32)
  # A tenth's steps: most values are tied.
  prediction = np.round(rng.random((32, 40)) * 0.5 + truth * 0.3, 1)
  thresholds = np.sort(prediction[truth > 0])[::-1]
  n, pixels = thresholds.size, truth.size
  tp, fp = [0.0], [0.0]
  for i, threshold in enumerate(thresholds, start=1):
    tp.append(i / n)
    fp.append((np.sum(prediction >= threshold) - i) / (pixels - n))
  expected = np.trapezoid([*tp, 1.0], [*fp, 1.0])
  assert saliency.auc_judd(prediction, truth) == pytest.approx(expected, rel=1e-12)


def test_perfect_prediction():
  y, x = np.mgrid[:16, :24]
  truth = (np.hypot(x - 5, y - 6) < 4).astype(np.float32)
  values = saliency.MapMetrics.of(truth, truth).values()
  assert values['mse'] == 0
  assert values['cc'] == pytest.approx(1)
  assert values['sim'] == pytest.approx(1)
  assert values['kld'] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize('value', [0.0, 0.1, 1.0])
def test_constant_prediction_is_undefined(value):
  truth = np.zeros((30, 30), np.float32)
  truth[3:9, 4:20] = 1 / 3
  metrics = saliency.MapMetrics.of(np.full((30, 30), value, np.float32), truth)
  undefined = {'cc', 'nss', 'auc_judd'} | ({'kld', 'sim'} if value == 0 else set())
  assert {name for name, count in metrics.undefined().items() if count} == undefined
  assert np.isnan([metrics.values()[name] for name in undefined]).all()


def test_truth_without_or_full_of_fixations():
  prediction = np.linspace(0, 1, 12).reshape(3, 4)
  truth = np.full((3, 4), 0.5)
  assert np.isnan(saliency.auc_judd(prediction, truth))
  assert np.isnan(saliency.auc_judd(prediction, truth, threshold=0.5))
  assert np.isnan(saliency.nss(prediction, truth, threshold=0.5))
  assert np.isnan(saliency.cc(prediction, truth))


def test_empty_truth_counts_in_the_errors_only():
  prediction = np.full((8, 8), 0.25)
  half = np.zeros((8, 8))
  half[:4] = 1
  empty = saliency.MapMetrics.of(prediction, np.zeros((8, 8)))
  total = empty + saliency.MapMetrics.of(half, half)
  assert total.values()['mse'] == pytest.approx(0.0625 / 2)
  assert total.values()['mse_empty'] == pytest.approx(0.0625)
  assert total.cc == saliency.Mean(1.0, 1.0)
  assert sum(total.undefined().values()) == 0


def test_prediction_is_resized_to_the_truth():
  x = np.linspace(0, 1, 32)
  wide = np.tile(x, (16, 1))
  # Halving averages neighbours; the ramp stays a ramp but for the borders.
  half = saliency.resize_map(wide, 8, 16)
  assert half.shape == (8, 16)
  np.testing.assert_allclose(
    half[:, 1:-1], wide.reshape(8, 2, 16, 2).mean((1, 3))[:, 1:-1], atol=1e-6
  )
  assert saliency.mse(wide, half) == pytest.approx(0, abs=1e-12)
  assert saliency.cc(half, wide) > 0.999


def test_any_split_gives_the_same_means(pair):
  prediction, truth = pair
  pairs = [(prediction, np.roll(truth, shift, 0)) for shift in range(0, 64, 5)]
  pairs.append((prediction, np.zeros((64, 64))))
  pairs.append((np.zeros((64, 64)), truth))
  each = [saliency.MapMetrics.of(*p) for p in pairs]
  whole = sum(each, saliency.MapMetrics())
  for cut in (1, 4, 9):
    parts = [
      sum(each[i : i + cut], saliency.MapMetrics()) for i in range(0, len(each), cut)
    ]
    merged = sum(reversed(parts), saliency.MapMetrics())
    assert merged.values() == pytest.approx(whole.values(), abs=1e-12)
    assert merged.undefined() == whole.undefined()


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_a_diverged_prediction_is_an_error(bad):
  prediction = np.zeros((4, 4))
  prediction[1, 2] = bad
  with pytest.raises(ValueError, match='prediction holds NaN or infinity'):
    saliency.MapMetrics.of(prediction, np.ones((4, 4)))


def test_a_batch_is_an_error():
  # A TypeError where the annotations are checked, which then comes first.
  with pytest.raises((ValueError, TypeError), match=r'1, ?4, ?4'):
    saliency.mse(np.zeros((4, 4)), np.zeros((1, 4, 4)))
