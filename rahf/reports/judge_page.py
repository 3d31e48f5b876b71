"""Renders a report on image generators as one HTML file without script.

Nothing is loaded from elsewhere, and all text is escaped.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from rahf.drawing import html_page
from rahf.metrics.bootstrap import Interval
from rahf.reports.judge_tables import Report, Table

# Width of the axis of intervals, and of the margin at both ends of it.
_WIDTH, _MARGIN = 200, 6


class Mark(NamedTuple):
  """An interval in the units of the picture; equal ends if it is unknown."""

  value: float
  low: float
  high: float


class Chart(NamedTuple):
  """Intervals on one axis, a mark for each row, and the values at its ends."""

  marks: Sequence[Mark]
  low: str
  high: str


def render(report: Report) -> str:
  """Returns the page."""
  page = html_page.render(
    'rahf.reports',
    'judge_page',
    scripted=False,
    title=report.title,
    summary=report.summary,
    tables=[(table, _chart(table)) for table in report.tables],
    notes=report.notes,
    width=_WIDTH,
  )
  return page.html


def _chart(table: Table) -> Chart | None:
  """Places the intervals of a table on one axis; None if there are none."""
  if not table.intervals:
    return None
  known = [_known(one) for one in table.intervals]
  low, high = min(one.low for one in known), max(one.high for one in known)
  span = high - low or 1.0  # All values may be equal.

  def place(number: float) -> float:
    return round(_MARGIN + (_WIDTH - 2 * _MARGIN) * (number - low) / span, 1)

  return Chart([Mark(*map(place, one)) for one in known], f'{low:.4g}', f'{high:.4g}')


def _known(one: Interval) -> Interval:
  return Interval(one.value, one.value, one.value) if math.isnan(one.low) else one
