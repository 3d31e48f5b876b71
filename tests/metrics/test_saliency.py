"""Saliency metrics against published values and closed forms."""

import numpy as np
import pytest
from scipy import stats
from scipy.ndimage import gaussian_filter

from rahf.metrics import saliency
from rahf.metrics.conventions import CONVENTIONS

# pysaliency's test fixtures: (x, y) of the fixations on two 40x40 images.
FIXATIONS = (
  ((0, 10), (1, 11), (2, 12), (2, 12), (2, 12)),
  ((1, 21), (5, 25), (3, 33)),
)


@pytest.fixture(scope='module')
def published(goldens):
  return goldens['pysaliency (MIT; tests/test_saliency_map_models.py)']


@pytest.fixture(scope='module')
def gaussian():
  y, x = np.mgrid[:40, :40]
  return np.exp(-0.5 * ((x - 20) ** 2 + (y - 20) ** 2) / np.hypot(40, 40))


def fixation_map(fixations):
  fixated = np.zeros((40, 40))
  for x, y in fixations:
    fixated[y, x] = 1
  return fixated


def gold_map(fixations):
  return gaussian_filter(fixation_map(fixations), 10, mode='reflect')


def test_nss_equals_pysaliency(published, gaussian):
  values = [
    saliency.nss(gaussian, fixation_map([xy]), convention='pysaliency')
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
  def kld(truth):
    return saliency.kld(gaussian, truth, convention='pysaliency')

  mean = np.mean([kld(gold_map(f)) for f in FIXATIONS])
  expected = published['KLD(pred=G,gt=gold) minimum_value 1e-20']
  assert mean == pytest.approx(expected, rel=1e-13)
  flat = kld(np.ones((40, 40)))
  assert flat == pytest.approx(published['KLD(pred=G,gt=C)'], rel=1e-13)


def test_auc_judd_of_a_constant_equals_pysaliency(published):
  truth = fixation_map(FIXATIONS[0])
  area = saliency.auc_judd(np.ones((40, 40)), truth, convention='pysaliency')
  assert area == published['AUC constant map']


def test_auc_judd_equals_pysaliency(published, gaussian):
  # pysaliency counts a pixel as often as it is fixated, which a mask cannot express, so
  # the area is computed from the list of fixated values.
  areas = []
  for fixations in FIXATIONS:
    fixated = np.array([gaussian[y, x] for x, y in fixations])
    values = np.concatenate([gaussian[fixation_map(fixations) == 0], fixated])
    areas.append(saliency._judd_area(values, fixated, CONVENTIONS['pysaliency']))
  (expected,) = (v for k, v in published.items() if k.startswith('AUC_Judd no jitter'))
  assert np.mean(areas) == pytest.approx(expected, rel=1e-12)


def test_auc_judd_equals_fixatons(goldens):
  prediction = np.array([[0.1, 0.2], [0.3, 1.0]])
  truth = np.array([[0.0, 0.0], [0.0, 1.0]])
  golden = goldens['FixaTons tests (2x2)']
  area = saliency.auc_judd(prediction, truth, convention='richhf_torch')
  assert area == pytest.approx(golden['published AUC_Judd jitter=False'], rel=1e-12)
  assert saliency.auc_judd(prediction, truth) == pytest.approx(
    golden['matlab/pysaliency definition'], rel=1e-12
  )


# Metric, golden value, options.
DEFINITIONS = [
  ('mse', 'MSE', {}),
  ('cc', 'CC', {}),
  ('kld', 'KLD MIT eps=2.2204e-16', {'convention': 'mit'}),
  ('kld', 'KLD MIT eps=2.2204e-16', {}),
  ('kld', 'KLD RAHF public eps=1e-8', {'convention': 'richhf_torch'}),
  ('kld', 'KLD pysaliency minimum_value=1e-20', {'convention': 'pysaliency'}),
  ('sim', 'SIM no min-max (RAHF public repo, pysaliency)', {}),
  (
    'sim',
    'SIM no min-max (RAHF public repo, pysaliency)',
    {'convention': 'pysaliency'},
  ),
  (
    'sim',
    'SIM no min-max (RAHF public repo, pysaliency)',
    {'convention': 'richhf_torch'},
  ),
  ('nss', 'NSS gt>0 sample std (MIT, RAHF public)', {}),
  ('nss', 'NSS gt>0 sample std (MIT, RAHF public)', {'convention': 'mit'}),
  ('nss', 'NSS gt>0 sample std (MIT, RAHF public)', {'convention': 'richhf_torch'}),
  ('nss', 'NSS gt>0 population std (pysaliency)', {'convention': 'pysaliency'}),
  ('nss', 'NSS gt>127 sample std', {'threshold': 127 / 255}),
  ('auc_judd', 'AUC_Judd gt>0 MIT no jitter', {'convention': 'mit'}),
  (
    'auc_judd',
    'AUC_Judd gt>0 Zanca/RAHF-public no jitter',
    {'convention': 'richhf_torch'},
  ),
]


@pytest.mark.parametrize(('metric', 'published', 'options'), DEFINITIONS)
def test_definition_matrix(goldens, pair, metric, published, options):
  expected = goldens['definition_matrix_64x64'][published]
  assert getattr(saliency, metric)(*pair, **options) == pytest.approx(
    expected, rel=1e-14
  )
  if metric != 'mse':
    convention = options.pop('convention', 'rahf')
    metrics = saliency.MapMetrics.of(*pair, convention=convention, **options)
    assert getattr(metrics, metric).value == pytest.approx(expected, rel=1e-14)


def test_equals_scipy(pair):
  prediction, truth = (values.ravel() for values in pair)
  correlation = stats.pearsonr(prediction, truth).statistic
  assert saliency.cc(*pair) == pytest.approx(correlation, rel=1e-13)
  divergence = stats.entropy(truth, prediction)
  assert saliency.kld(*pair) == pytest.approx(divergence, rel=1e-12)
  z = stats.zscore(prediction, ddof=1)[truth > 0].mean()
  assert saliency.nss(*pair) == pytest.approx(z, rel=1e-13)


def test_similarity_of_stretched_maps():
  prediction, truth = np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([[0, 0.5], [0.5, 1]])
  # Minus their minima: 0 1 2 4 of 7, and 0 1 1 2 of 4.
  expected = 1 / 7 + min(2 / 7, 1 / 4) + min(4 / 7, 2 / 4)
  found = saliency.sim(prediction, truth, convention='mit')
  assert found == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
  ('convention', 'prediction', 'undefined', 'defined'),
  [
    ('rahf', 0.5, {'cc', 'nss', 'auc_judd'}, {}),
    ('rahf', 0.0, {'cc', 'nss', 'auc_judd', 'kld', 'sim'}, {}),
    ('mit', 0.5, {'cc', 'nss', 'auc_judd', 'sim'}, {}),
    ('pysaliency', 0.0, {'nss', 'sim'}, {'cc': 0, 'auc_judd': 0.5}),
    ('richhf_torch', 0.5, {'nss', 'auc_judd'}, {'cc': 0}),
  ],
)
def test_metrics_of_a_constant_prediction(convention, prediction, undefined, defined):
  truth = np.eye(6)
  metrics = saliency.MapMetrics.of(
    np.full((6, 6), prediction), truth, convention=convention
  )
  assert {name for name, count in metrics.undefined().items() if count} == undefined
  values = metrics.values()
  assert {name: values[name] for name in defined} == defined


@pytest.mark.parametrize('metric', ['cc', 'kld', 'sim', 'nss', 'auc_judd', 'of'])
@pytest.mark.parametrize('empty', [False, True])
def test_an_unknown_convention_is_an_error(pair, metric, empty):
  prediction, truth = pair
  home = saliency.MapMetrics if metric == 'of' else saliency
  with pytest.raises(ValueError, match="'cat2000'; choose from rahf, mit, pysaliency"):
    getattr(home, metric)(prediction, truth * (not empty), convention='cat2000')


def test_a_batch_equals_its_pairs(pair):
  prediction, truth = pair
  batch = np.stack([prediction, prediction[::-1]]), np.stack([truth, 0 * truth])
  for metric in (saliency.mse, saliency.cc, saliency.kld, saliency.sim, saliency.nss):
    each = [metric(*maps) for maps in zip(*batch, strict=True)]
    np.testing.assert_array_equal(metric(*batch), each)
  areas = saliency.auc_judd(*batch, threshold=0.5)
  assert areas.shape == (2,)
  assert np.isnan(areas[1])


@pytest.mark.parametrize('scale', [1.0, 1e-3, 1e-200])
def test_tiny_differences_are_compared_exactly(scale):
  # Two adjacent float64 values, whose mean is neither.
  truth = np.arange(30).reshape(5, 6) % 3 == 0
  low, high = scale, np.nextafter(scale, 2 * scale)
  prediction = np.where(truth, high, low)
  assert saliency.cc(prediction, truth.astype(float)) == pytest.approx(1, rel=1e-12)
  assert saliency.cc(low + high - prediction, 1.0 * truth) == pytest.approx(-1)
  # Same as for 0 and 1 at a third of the pixels.
  z = stats.zscore(1.0 * truth.ravel(), ddof=1).max()
  assert saliency.nss(prediction, 1.0 * truth) == pytest.approx(z, rel=1e-12)


def test_ranges_are_exact():
  rng = np.random.default_rng(0)
  for _ in range(200):
    values = rng.random((7, 9))
    assert saliency.cc(values, values) <= 1
    assert saliency.cc(values, -values) >= -1
    assert saliency.sim(values, values) <= 1


@pytest.mark.parametrize('metric', [saliency.sim, saliency.kld])
def test_negative_values_are_not_a_distribution(metric):
  values = np.array([[0.5, -0.1], [0.2, 0.3]])
  assert np.isnan(metric(values, abs(values)))
  assert np.isnan(metric(abs(values), values))


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


def test_empty_truth_counts_only_for_errors():
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
  # Halving averages neighbours; the ramp stays a ramp except at the borders.
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
  with pytest.raises(ValueError, match='prediction contains NaN or infinity'):
    saliency.MapMetrics.of(prediction, np.ones((4, 4)))


def test_batches_of_different_length_are_an_error():
  with pytest.raises((ValueError, TypeError)):
    saliency.mse(np.zeros((2, 4, 4)), np.zeros((3, 4, 4)))


def test_a_map_and_a_batch_are_an_error():
  # If annotations are checked at run time, a TypeError comes first.
  with pytest.raises((ValueError, TypeError), match=r'1, ?4, ?4'):
    saliency.mse(np.zeros((4, 4)), np.zeros((1, 4, 4)))
