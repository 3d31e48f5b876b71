"""Score correlation against values published for TIFA's human ratings."""

import json

import numpy as np
import pytest

from rahf.metrics import correlation

MEASURES = correlation.plcc, correlation.srcc, correlation.kendall


@pytest.fixture(scope='module')
def ratings(assets):
  path = assets / 'scores' / 'tifa_human_annotations_with_scores.json'
  return list(json.loads(path.read_text()).values())


@pytest.fixture(scope='module')
def goldens(assets):
  path = assets / 'scores' / 'tifa_correlation_goldens.json'
  return json.loads(path.read_text())['values']


def test_published_correlations(ratings, goldens):
  human = np.array([rating['human_avg'] for rating in ratings])
  assert len(human) == 800
  for name, golden in goldens.items():
    metric = np.array([rating[name] for rating in ratings])
    plcc, srcc = correlation.plcc(metric, human), correlation.srcc(metric, human)
    assert plcc == pytest.approx(golden['published_PLCC'], rel=1e-12)
    assert srcc == pytest.approx(golden['recomputed_SRCC'], rel=1e-12)
    tau = correlation.kendall(metric, human)
    assert tau == pytest.approx(golden['published_kendall_tau_b'], rel=1e-12)


def test_kendall_by_hand():
  # Of six pairs, four are concordant, one is discordant, one tied in the prediction.
  value = correlation.kendall(np.array([0.1, 0.5, 0.5, 0.9]), np.array([3.0, 9, 2, 10]))
  assert value == pytest.approx((4 - 1) / np.sqrt(5 * 6))


def test_spearman_by_hand():
  # Ranks 1, 2.5, 2.5, 4 against 1, 3, 2, 4: covariance 4.5, variances 4.5 and 5.
  value = correlation.srcc(np.array([0.1, 0.5, 0.5, 0.9]), np.array([0.0, 9, 3, 10]))
  assert value == pytest.approx(4.5 / np.sqrt(4.5 * 5))


def test_mask_excludes_scores_that_are_not_annotated():
  prediction = np.array([0.1, 0.9, 0.4, 0.8])
  truth = np.array([0.2, np.nan, 0.5, 0.9])
  mask = np.isfinite(truth)
  for measure in MEASURES:
    masked = measure(prediction, truth, mask)
    assert masked == measure(prediction[mask], truth[mask])
    with pytest.raises(ValueError, match='1 of 4 scores of the truth'):
      measure(prediction, truth)


@pytest.mark.parametrize('measure', MEASURES)
@pytest.mark.filterwarnings('error')
def test_undefined_is_nan(measure):
  varied = np.array([0.1, 0.2, 0.3])
  assert np.isnan(measure(np.full(3, 0.1), varied))
  assert np.isnan(measure(varied, np.full(3, 0.1)))
  assert np.isnan(measure(varied[:1], varied[:1]))
  assert np.isnan(measure(varied, varied, np.zeros(3, bool)))


def test_different_lengths_are_an_error():
  # If annotations are checked at run time, a TypeError comes first.
  with pytest.raises((ValueError, TypeError), match=r'one score per example|truth'):
    correlation.plcc(np.zeros(3), np.zeros(4))
