"""Resampling against closed forms."""

import numpy as np
import pytest

from rahf.pretrained.positions import can_resample, grid_of, resample_positions


def ramp(side: int) -> np.ndarray:
  """A plane over the grid that does not depend on its size: 2 + 3 row - 5 column."""
  place = np.linspace(0, 1, side)
  values = 2 + 3 * place[:, None] - 5 * place[None]
  return values.reshape(1, side * side, 1).astype(np.float32)


@pytest.mark.parametrize(('old', 'new'), [(14, 32), (24, 32), (4, 3), (2, 9)])
def test_a_linear_ramp_stays_a_ramp(old, new):
  first = np.full((1, 1, 1), 7, np.float32)
  table = np.concatenate([first, ramp(old)], axis=1)
  resampled = resample_positions(table, new * new + 1)
  assert resampled.shape == (1, new * new + 1, 1)
  # The class token's row is not part of the grid.
  assert resampled[0, 0, 0] == 7
  np.testing.assert_allclose(resampled[:, 1:], ramp(new), atol=1e-5)


def test_rows_between_are_means_of_their_neighbours():
  table = np.arange(2 * 2 * 3, dtype=np.float32).reshape(1, 4, 3) ** 2
  resampled = resample_positions(table, 9).reshape(3, 3, 3)
  corners = table.reshape(2, 2, 3)
  np.testing.assert_array_equal(resampled[::2, ::2], corners)
  np.testing.assert_allclose(resampled[1, 1], corners.mean((0, 1)))
  np.testing.assert_allclose(resampled[0, 1], corners[0].mean(0))


def test_a_class_token_without_a_row_gets_zeros():
  table = np.random.default_rng(0).random((1, 9, 2), np.float32)
  resampled = resample_positions(table, 10)
  np.testing.assert_array_equal(resampled[:, 1:], table)
  assert not resampled[:, 0].any()
  assert can_resample(9, 10)
  assert not can_resample(10, 9)


def test_grids():
  assert [grid_of(n) for n in (1, 2, 197, 577, 1024, 6, 198)] == [
    (0, 1),
    (1, 1),
    (1, 14),
    (1, 24),
    (0, 32),
    None,
    None,
  ]
