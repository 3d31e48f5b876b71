"""Charts: values are in the right place, and missing values are not drawn."""

import sys

import numpy as np
import pytest

from rahf.drawing import charts
from rahf.drawing.charts import Histogram

NAN = float('nan')


def test_points_are_at_their_values():
  def dots(x, y):
    pair = np.array([x, NAN]), np.array([y, 0.5])
    chart = charts.scatters({'a': pair, 'b': pair}, 'annotated', 'predicted')
    assert chart.dtype == np.uint8
    assert chart.shape[1] == charts.WIDTH
    blank = charts.scatters(
      {'a': (pair[1][:0],) * 2} | {'b': (pair[1][:0],) * 2}, 'annotated', 'predicted'
    )
    rows, columns = np.nonzero((chart != blank).any(-1))
    left = columns < charts.WIDTH / 2
    return rows[left].mean(), columns[left].mean()

  (low_row, left), (high_row, right) = dots(0.1, 0.2), dots(0.9, 0.8)
  assert high_row < low_row - 50  # up
  assert left < right - 50
  middle = dots(0.5, 0.5)
  assert middle[0] == pytest.approx((low_row + high_row) / 2, abs=1.5)
  assert middle[1] == pytest.approx((left + right) / 2, abs=1.5)


def test_bars_are_shares():
  """A bin with half of the values is half as high as one with all."""

  def heights(values):
    one = Histogram({'x': np.array(values)}, [0, 0.5, 1])
    chart = charts.histograms({'a': one, 'b': one}, 'score', 'share')
    blue = (chart == (0x1C, 0x5F, 0xC4)).all(-1)[:, : charts.WIDTH // 2]
    columns = np.flatnonzero(blue.any(0))
    quarter = len(columns) // 4
    return blue[:, columns[quarter]].sum(), blue[:, columns[-quarter]].sum()

  even = heights([0.1, 0.2, 0.7, 0.8, NAN, NAN])
  assert even[0] == pytest.approx(even[1], abs=2)
  uneven = heights([0.1, 0.2, 0.3, 0.8])
  assert uneven[0] == pytest.approx(3 * uneven[1], rel=0.05)


def test_nothing_to_draw_is_an_empty_chart():
  empty = np.full(3, NAN)
  charts.scatters({'a': (empty, empty)}, 'x', 'y')
  charts.histograms({'a': Histogram({'x': empty}, [0, 1])}, 'x', 'y')


def test_without_matplotlib_the_extra_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
  with pytest.raises(ImportError, match=r"pip install 'rahf\[train\]'"):
    charts.scatters({}, 'x', 'y')
