"""Intervals against closed forms, and significance of known differences."""

import numpy as np
import pytest

from rahf.metrics import bootstrap
from rahf.metrics.weighted_correlation import plcc

RNG = np.random.default_rng(0)


def test_the_interval_of_a_mean():
  values = RNG.normal(size=400)
  found = bootstrap.resample(bootstrap.mean(values), 400, draws=2000).interval
  assert found.value == pytest.approx(values.mean())
  # The means of the draws are nearly normal.
  half = 1.96 * values.std() / np.sqrt(400)
  assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
  assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_the_interval_of_a_correlation_covers_it():
  """In 95 of 100 cases, as claimed; with few draws, to be fast."""
  covered = 0
  for seed in range(100):
    random = np.random.default_rng(seed)
    x = random.normal(size=100)
    y = 0.6 * x + 0.8 * random.normal(size=100)
    drawn = bootstrap.resample(lambda w, x=x, y=y: plcc(x, y, w), 100, draws=200)
    covered += drawn.interval.low <= 0.6 <= drawn.interval.high
  assert 88 <= covered <= 99


def test_draws_are_with_replacement():
  """Each counts as many samples as there are; in parts, they are the same draws."""
  (weights,) = bootstrap.draw(7, 30, seed=3)
  assert weights.shape == (30, 7)
  assert (weights.sum(1) == 7).all()
  random = np.random.default_rng(3)
  for row in weights:
    assert (np.bincount(random.integers(7, size=7), minlength=7) == row).all()


def test_draws_of_many_samples_come_in_parts(monkeypatch):
  values = RNG.normal(size=50)
  whole = bootstrap.resample(bootstrap.mean(values), 50, draws=20)
  monkeypatch.setattr(bootstrap, '_AT_ONCE', 150)
  parts = bootstrap.resample(bootstrap.mean(values), 50, draws=20)
  assert len([*bootstrap.draw(50, 20, 0)]) == 7
  np.testing.assert_allclose(parts.drawn, whole.drawn, rtol=1e-12)


def test_means_leave_out_what_is_unknown():
  weights = np.array([[1, 2, 5], [0, 0, 4]])
  found = bootstrap.mean(np.array([1.0, 4.0, np.nan]))(weights)
  np.testing.assert_array_equal(found, [3, np.nan])


def test_the_same_seed_gives_the_same_interval():
  values = RNG.normal(size=50)
  first, again, other = (
    bootstrap.resample(bootstrap.mean(values), 50, draws=50, seed=seed).interval
    for seed in (1, 1, 2)
  )
  assert first == again
  assert first != other


def test_pairing_is_more_sensitive_than_intervals():
  easy = RNG.normal(size=200)
  worse, better = easy, easy + 0.1 + 0.05 * RNG.normal(size=200)
  first, second = (bootstrap.resample(bootstrap.mean(v), 200) for v in (worse, better))
  assert first.interval.high > second.interval.low
  found = bootstrap.difference(first, second)
  assert found.value == pytest.approx((better - worse).mean())
  assert found.low < found.value < found.high
  assert found.significant
  assert found.p < 0.01
  back = bootstrap.difference(second, first)
  assert back.value == -found.value
  assert back.significant


def test_equal_runs_do_not_differ():
  values = RNG.normal(size=60)
  drawn = bootstrap.resample(bootstrap.mean(values), 60)
  found = bootstrap.difference(drawn, drawn)
  assert found[:3] == (0, 0, 0)
  assert found.p == 1
  assert not found.significant


def test_noise_is_significant_as_rarely_as_claimed():
  verdicts = []
  for seed in range(100):
    random = np.random.default_rng(seed)
    runs = (
      bootstrap.resample(bootstrap.mean(values), 80, draws=200)
      for values in random.normal(size=(2, 80))
    )
    verdicts.append(bootstrap.difference(*runs).significant)
  assert sum(verdicts) <= 12


def test_undefined_draws_are_left_out():
  x, y = np.array([0.0, 1, 1]), np.array([0.0, 1, 2])
  found = bootstrap.resample(lambda w: plcc(x, y, w), 3, draws=100)
  assert np.isnan(found.drawn).any()
  assert np.isfinite(found.interval).all()
  for samples in (3, 0):
    nothing = bootstrap.resample(lambda w: np.full(len(w), np.nan), samples, draws=10)
    assert np.isnan(nothing.interval).all()
    assert np.isnan(bootstrap.difference(nothing, nothing)).all()


def test_one_sample_has_no_interval():
  one, other = (
    bootstrap.resample(bootstrap.mean(np.array([v])), 1) for v in (0.25, 0.75)
  )
  assert one.interval.value == 0.25
  assert np.isnan(one.interval[1:]).all()
  found = bootstrap.difference(one, other)
  assert found.value == 0.5
  assert np.isnan(found.p)
  assert not found.significant
