"""Correlations of repeated samples against SciPy's, and against published values."""

import json

import numpy as np
import pytest

from rahf.metrics import correlation, weighted_correlation

NAMES = 'plcc', 'srcc', 'kendall'


def measures(name: str):
  return getattr(weighted_correlation, name), getattr(correlation, name)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('samples', [1, 2, 3, 40, 600])
@pytest.mark.parametrize('levels', [3, 5, None])
def test_repeated_samples(name, samples, levels):
  """With many ties, with few, and with draws in which a side is constant."""
  weighted, plain = measures(name)
  random = np.random.default_rng(samples)
  x = random.normal(size=samples)
  y = x + random.normal(size=samples)
  if levels:
    x, y = np.round(levels * x), np.round(levels * y)
  picked = random.integers(samples, size=(40, samples))
  weights = np.stack([np.bincount(row, minlength=samples) for row in picked])
  found = weighted(x, y, weights)
  expected = [plain(x[row], y[row]) for row in picked]
  np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('name', NAMES)
def test_nothing_is_defined_without_two_values(name):
  weighted, _ = measures(name)
  # 0.1 has no exact mean, so that a variance would not be exactly 0.
  x, y = np.array([0.1, 0.1, 0.1, 0.7]), np.array([1.0, 2.0, 3.0, 4.0])
  weights = np.array([[1, 1, 1, 0], [0, 0, 0, 4], [0, 0, 0, 0], [0, 0, 1, 1]])
  for one, other in ((x, y), (y, x)):
    found = weighted(one, other, weights)
    np.testing.assert_allclose(found, [np.nan] * 3 + [1], rtol=1e-12)
  assert np.isnan(weighted(x[:0], y[:0], weights[:, :0])).all()


def test_published_correlations(assets):
  path = assets / 'scores' / 'tifa_human_annotations_with_scores.json'
  ratings = [*json.loads(path.read_text()).values()]
  path = assets / 'scores' / 'tifa_correlation_goldens.json'
  human = np.array([rating['human_avg'] for rating in ratings])
  once = np.ones((1, len(ratings)))
  for name, golden in json.loads(path.read_text())['values'].items():
    metric = np.array([rating[name] for rating in ratings])
    for measure, key in (
      ('plcc', 'published_PLCC'),
      ('srcc', 'recomputed_SRCC'),
      ('kendall', 'published_kendall_tau_b'),
    ):
      (found,) = measures(measure)[0](metric, human, once)
      assert found == pytest.approx(golden[key], rel=1e-12), (name, measure)
