"""Draws charts as RGB arrays with matplotlib (extra `train`).

They are 680 pixels wide with large fonts, since TensorBoard shows them at half size.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

WIDTH, DPI = 680, 100
BLUE, ORANGE, GREY, TRACK = '#1c5fc4', '#d95f02', '#66727f', '#e4e7eb'
COLOURS = (BLUE, ORANGE, GREY, '#1b9e77', '#7b3294', '#a6761d')


class Histogram(NamedTuple):
  """The values of one panel of `histograms`.

  Attributes:
    values: by legend label; NaN is ignored.
    edges: of the bins.
  """

  values: Mapping[str, Float[np.ndarray, '_']]
  edges: Sequence[float] | Float[np.ndarray, '_']


def scatters(
  points: Mapping[str, tuple[Float[np.ndarray, 'N'], Float[np.ndarray, 'N']]],
  horizontal: str,
  vertical: str,
) -> UInt8[np.ndarray, 'h w 3']:
  """Draws scatter plots of values in [0, 1], one panel per name.

  Args:
    points: x and y by name; pairs with a NaN are ignored.
    horizontal, vertical: axis labels.
  """
  figure, axes = _panels(len(points))
  for axis, (name, (x, y)) in zip(axes, points.items(), strict=True):
    known = ~(np.isnan(x) | np.isnan(y))
    axis.plot((0, 1), (0, 1), color=TRACK, zorder=0)
    axis.scatter(x[known], y[known], s=14, alpha=0.35, color=BLUE, linewidths=0)
    axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect='equal', title=name)
  _name_axes(figure, horizontal, vertical)
  return _draw(figure)


def histograms(
  panels: Mapping[str, Histogram], horizontal: str, vertical: str
) -> UInt8[np.ndarray, 'h w 3']:
  """Draws histograms of the share of values in each bin, one panel per name."""
  figure, axes = _panels(len(panels))
  for axis, (name, (values, edges)) in zip(axes, panels.items(), strict=True):
    for colour, (label, column) in zip(_colours(values), values.items(), strict=True):
      known = column[~np.isnan(column)]
      counts, _ = np.histogram(known, edges)
      share = counts / max(known.size, 1)
      axis.stairs(share, edges, color=colour, fill=len(values) == 1, label=label, lw=2)
    axis.set(title=name, ylim=(0, None))
  _name_colours(figure, axes)
  _name_axes(figure, horizontal, vertical)
  return _draw(figure)


class Curve(NamedTuple):
  """Estimates along an axis, with their intervals; arrays of equal length."""

  x: Sequence[float]
  mean: Sequence[float]
  low: Sequence[float]
  high: Sequence[float]


def curves(
  panels: Mapping[str, Mapping[str, Curve]], horizontal: str
) -> UInt8[np.ndarray, 'h w 3']:
  """Draws curves over a logarithmic axis, one panel per name.

  Args:
    panels: curves by name of the panel and legend label.
    horizontal: axis label.
  """
  figure, axes = _panels(len(panels))
  for axis, (name, lines) in zip(axes, panels.items(), strict=True):
    axis.set(title=name, xscale='log')
    ticks = sorted({x for curve in lines.values() for x in curve.x})
    axis.set_xticks(ticks, [f'{x:,g}' for x in ticks])
    axis.minorticks_off()
    for number, (colour, (label, curve)) in enumerate(
      zip(_colours(lines), lines.items(), strict=True)
    ):
      x = np.array(curve.x) * 1.04**number  # Intervals do not hide one another.
      around = np.abs(np.array([curve.low, curve.high]) - curve.mean)
      axis.errorbar(x, curve.mean, around, color=colour, label=label, lw=2, capsize=4)
  _name_colours(figure, axes)
  figure.supxlabel(horizontal, size=15)
  return _draw(figure)


def bars(
  panels: Mapping[str, Mapping[str, Mapping[str, float]]], vertical: str
) -> UInt8[np.ndarray, 'h w 3']:
  """Draws bars side by side, one panel per name.

  Args:
    panels: by name of the panel and legend label, the values by name of the bar.
    vertical: axis label.
  """
  figure, axes = _panels(len(panels))
  for axis, (name, groups) in zip(axes, panels.items(), strict=True):
    names = list(dict.fromkeys(bar for values in groups.values() for bar in values))
    width = 0.8 / max(len(groups), 1)
    for number, (colour, (label, values)) in enumerate(
      zip(_colours(groups), groups.items(), strict=True)
    ):
      left = np.arange(len(names)) + width * (number - (len(groups) - 1) / 2)
      heights = [values.get(bar, 0) for bar in names]
      axis.bar(left, heights, width, color=colour, label=label)
    axis.set(title=name)
    slant = {'rotation': 30, 'ha': 'right'} if len(names) > 3 else {}
    axis.set_xticks(np.arange(len(names)), names, **slant)
    axis.tick_params(labelsize=11)
  _name_colours(figure, axes)
  figure.supylabel(vertical, size=15)
  return _draw(figure)


def _colours(values: Mapping) -> list[str]:
  """Returns a colour for each; beyond a handful they repeat."""
  return [COLOURS[number % len(COLOURS)] for number in range(len(values))]


def _panels(count: int):
  """Returns a figure and its axes, two per row."""
  try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
  except ImportError as error:
    raise ModuleNotFoundError(
      "charts need matplotlib: pip install 'rahf[train]'", name='matplotlib'
    ) from error
  rows = -(-count // 2)
  size = WIDTH / DPI, 3.3 * rows + 0.4
  figure = Figure(size, dpi=DPI, layout='constrained')
  FigureCanvasAgg(figure)
  axes = [figure.add_subplot(rows, 2, i + 1) for i in range(count)]
  for axis in axes:
    axis.spines[['top', 'right']].set_visible(False)
    axis.tick_params(labelsize=13)
    axis.title.set_size(15)
  return figure, axes


def _name_colours(figure, axes) -> None:
  """Writes what each colour means above all panels, if there are several."""
  handles = {}
  for axis in axes:
    found = axis.get_legend_handles_labels()
    handles |= dict(zip(found[1], found[0], strict=True))
  if len(handles) > 1:
    figure.legend(
      handles.values(),
      handles,
      loc='outside upper center',
      ncols=min(len(handles), 4),
      frameon=False,
      fontsize=12,
    )


def _name_axes(figure, horizontal: str, vertical: str) -> None:
  figure.supxlabel(horizontal, size=15)
  figure.supylabel(vertical, size=15)


def _draw(figure) -> UInt8[np.ndarray, 'h w 3']:
  figure.canvas.draw()
  return np.array(figure.canvas.buffer_rgba())[..., :3]
