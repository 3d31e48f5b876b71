"""Krippendorff's alpha on the example of his paper and on simple cases."""

import numpy as np
import pytest

from rahf.data.labels.agreement import krippendorff_alpha

NAN = np.nan
# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section C: four
# observers, twelve units, values missing.
PAPER = np.array(
  [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
    [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
  ]
)


@pytest.mark.parametrize(('level', 'alpha'), [('nominal', 0.743), ('interval', 0.849)])
def test_the_papers_example(level, alpha):
  assert krippendorff_alpha(PAPER, level) == pytest.approx(alpha, abs=5e-4)


def test_the_order_of_annotators_does_not_matter():
  shuffled = PAPER.copy()
  rng = np.random.default_rng(0)
  for unit in shuffled.T:
    rng.shuffle(unit)
  assert krippendorff_alpha(shuffled) == pytest.approx(krippendorff_alpha(PAPER))


def test_perfect_and_chance():
  same = np.tile([1.0, 2, 5, 4], (3, 1))
  assert krippendorff_alpha(same) == 1
  random = np.random.default_rng(0).integers(1, 6, (3, 5000)).astype(float)
  assert abs(krippendorff_alpha(random)) < 0.03
  opposed = np.array([[1.0, 5] * 50, [5.0, 1] * 50])
  assert krippendorff_alpha(opposed) < -0.9


def test_undefined_cases():
  assert np.isnan(krippendorff_alpha(np.full((3, 4), 2.0)))
  assert np.isnan(krippendorff_alpha(np.array([[1.0, NAN], [NAN, 3.0]])))
  assert np.isnan(krippendorff_alpha(np.zeros((0, 0))))
