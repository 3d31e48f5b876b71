"""CMMD and the Fréchet distance against closed forms and their definitions."""

import itertools
import math

import numpy as np
import pytest

from rahf.errors import InputError
from rahf.metrics.distribution import cmmd, frechet_distance, gaussian


def directions(seed: int, count: int, width: int = 12) -> np.ndarray:
  """Returns vectors of length 1."""
  x = np.random.default_rng(seed).normal(size=(count, width)) + seed
  return x / np.linalg.norm(x, axis=1, keepdims=True)


def cmmd_by_definition(x, y) -> float:
  def mean(first, second):
    pairs = itertools.product(first, second)
    kernel = [math.exp(-sum((a - b) ** 2) / 200) for a, b in pairs]
    return math.fsum(kernel) / len(kernel)

  return 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))


def test_cmmd_is_its_definition():
  x, y = directions(0, 23), directions(1, 17)
  expected = cmmd_by_definition(x, y)
  assert expected > 1
  assert cmmd(x, y) == pytest.approx(expected, rel=1e-10)
  assert cmmd(y, x) == pytest.approx(expected, rel=1e-10)


def test_the_upper_end_of_cmmd():
  x = np.tile(directions(3, 1), (5, 1))
  assert cmmd(x, -x) == pytest.approx(2000 * (1 - math.exp(-0.02)), rel=1e-12)
  assert cmmd(x, -x) == pytest.approx(39.60, abs=5e-3)


def test_equal_sets_have_no_distance():
  x = directions(2, 40)
  assert cmmd(x, x.copy()) == pytest.approx(0, abs=1e-12)
  assert cmmd(x, x[::-1]) == pytest.approx(0, abs=1e-12)
  assert cmmd(x, np.repeat(x, 3, 0)) == pytest.approx(0, abs=1e-12)


def test_small_distances_are_not_lost_in_rounding():
  """All of one set are turned by a small angle: 2000 (1 - exp(-|x - y|^2 / 200))."""
  angle = 1e-5
  x = np.tile([1.0, 0.0], (4, 1))
  y = np.tile([math.cos(angle), math.sin(angle)], (3, 1))
  squared = (2 * math.sin(angle / 2)) ** 2
  expected = -2000 * math.expm1(-squared / 200)
  assert expected < 1e-8
  assert cmmd(x, y) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize('dtype', [np.float32, np.float16])
def test_the_size_of_blocks_does_not_matter(dtype):
  x, y = directions(0, 23).astype(dtype), directions(1, 17).astype(dtype)
  whole = cmmd(x, y)
  for block in (1, 5, 16, 17, 23, 100):
    assert cmmd(x, y, block=block) == pytest.approx(whole, rel=1e-10)
  fitted = gaussian(x)
  for block in (1, 5, 23):
    found = gaussian(x, block=block)
    np.testing.assert_array_equal(found.mean, fitted.mean)
    np.testing.assert_allclose(found.covariance, fitted.covariance, atol=1e-15)


def test_a_gaussian_by_numpy():
  features = np.random.default_rng(0).normal(3, 2, (50, 7))
  found = gaussian(features)
  np.testing.assert_allclose(found.mean, features.mean(0), rtol=1e-14)
  np.testing.assert_allclose(
    found.covariance, np.cov(features, rowvar=False), rtol=1e-12
  )


def test_float32_features_are_accumulated_in_float64():
  features = np.tile(np.float32([[10000.25], [10000.75]]), (50_000, 1))
  mean, covariance = gaussian(features)
  assert mean[0] == pytest.approx(10000.5, abs=1e-9)
  assert covariance[0, 0] == pytest.approx(0.0625 * 100_000 / 99_999, rel=1e-9)


def test_means_0_and_1_with_equal_covariances():
  """For Inception's 2,048 features it would be 2048, which takes long."""
  width, identity = 64, np.eye(64)
  found = frechet_distance(np.zeros(width), identity, np.ones(width), identity)
  assert found == pytest.approx(64, rel=1e-12)


def test_commuting_covariances():
  random = np.random.default_rng(1)
  basis = np.linalg.qr(random.normal(size=(30, 30)))[0]
  a, b = random.uniform(0, 5, (2, 30))
  a[:10] = 0
  b[5:12] = 0
  found = frechet_distance(
    np.full(30, 0.5), (basis * a) @ basis.T, np.zeros(30), (basis * b) @ basis.T
  )
  expected = 30 * 0.25 + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
  assert found == pytest.approx(expected, rel=1e-12)


def test_covariances_that_do_not_commute():
  """In two dimensions, Tr (S1 S2)^.5 = (Tr S1 S2 + 2 (det S1 S2)^.5)^.5."""
  first, second = np.array([[3.0, 1.0], [1.0, 2.0]]), np.array([[1.0, -0.5], [-0.5, 4]])
  product = first @ second
  root = math.sqrt(np.trace(product) + 2 * math.sqrt(np.linalg.det(product)))
  expected = 5 + 5 - 2 * root
  found = frechet_distance(np.zeros(2), first, np.zeros(2), second)
  assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('images', [2, 20, 80])
def test_fewer_images_than_features(images):
  """Sets that differ by a shift alone have its square as distance."""
  features = np.random.default_rng(2).normal(size=(images, 60))
  features *= np.geomspace(1e-4, 10, 60)
  fitted, shifted = gaussian(features), gaussian(features + 0.01)
  assert frechet_distance(*fitted, *fitted) == pytest.approx(0, abs=1e-9)
  assert frechet_distance(*fitted, *shifted) == pytest.approx(0.006, abs=1e-9)


def test_images_that_are_all_equal():
  point, spread = gaussian(np.ones((3, 4))), gaussian(np.eye(4))
  expected = 4 * 0.75**2 + np.trace(spread.covariance)
  assert frechet_distance(*point, *spread) == pytest.approx(expected)
  assert frechet_distance(*point, *point) == 0


GOOD = directions(0, 5)
NAN = np.where(np.arange(5)[:, None] == 2, np.nan, GOOD)


@pytest.mark.parametrize(
  ('x', 'y', 'message'),
  [
    (GOOD[:1], GOOD, 'first set has features of 1 images; .* at least 2'),
    (GOOD, GOOD[:0], 'second set has features of 0 images'),
    (GOOD, NAN, 'second set .* NaN or infinite, of 1 of 5'),
    (GOOD, directions(0, 5, 11), 'widths of 12 and 11'),
    (GOOD, 3 * GOOD, 'second set has features of length 3, .* length 1'),
    (GOOD[0], GOOD, r'shape \[12\]'),
  ],
)
def test_features_that_cmmd_refuses(x, y, message):
  with pytest.raises(InputError, match=message):
    cmmd(x, y)


@pytest.mark.parametrize('features', [GOOD[:1], NAN, GOOD[0]])
def test_features_that_have_no_gaussian(features):
  with pytest.raises(InputError, match='the set'):
    gaussian(features)


@pytest.mark.parametrize(
  ('mean', 'covariance', 'message'),
  [
    (np.zeros(3), np.eye(3), 'widths of 2 and 3'),
    (np.zeros(2), np.eye(3), r'the second mean and covariance have .*\[2\].*\[3, 3\]'),
    (np.array([0, np.nan]), np.eye(2), 'the second .* NaN'),
    (np.zeros(2), np.array([[1, 0.5], [0, 1]]), 'the second .* not symmetric'),
    (np.zeros(2), np.diag([-1.0, 2.0]), 'the second .* eigenvalue of -1 '),
  ],
)
def test_statistics_that_are_refused(mean, covariance, message):
  with pytest.raises(InputError, match=message):
    frechet_distance(np.zeros(2), np.eye(2), mean, covariance)
