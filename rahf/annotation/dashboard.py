"""The page for whoever runs a project."""

import math
import pathlib
from typing import Any

from rahf.annotation.people import Person
from rahf.annotation.project import Project
from rahf.annotation.summary import Row, Summary
from rahf.drawing import html_page

_PACKAGE = 'rahf.annotation'
_NONE = '–'


def page(project: Project, person: Person, found: Summary) -> html_page.Page:
  """Returns the dashboard."""
  return html_page.compose(
    (_PACKAGE, 'dashboard.html'),
    styles=[
      (html_page.SHARED, 'common.css'),
      *((_PACKAGE, f'{name}.css') for name in ('annotation', 'dashboard')),
    ],
    scripts=[
      (html_page.SHARED, 'common.js'),
      *((_PACKAGE, f'{name}.js') for name in ('sentence', 'dashboard')),
    ],
    allowed="img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'",
    title=f'{_name(project)} ({project.settings.task}): dashboard',
    task=project.settings.task,
    answers=project.settings.answers,
    found=found,
    people=[_shown(row) for row in found.annotators],
    alpha={name: _number(value) for name, value in found.alpha.items()},
    most=max((max(counts) for counts in found.differences.values()), default=0),
    data=html_page.embed({'csrf': person.csrf}),
  )


def _name(project: Project) -> str:
  """Returns the name of the project's folder, or of its database."""
  path = pathlib.Path(project.store.engine.url.database or '').absolute()
  return path.parent.name if project.store.is_sqlite else path.name


def _shown(row: Row) -> dict[str, Any]:
  """Returns the texts of a row."""
  return {
    **row._asdict(),
    'seconds': _number(row.seconds, 1),
    'deviation': _number(row.deviation),
    'left': _NONE if math.isnan(row.left) else f'{100 * row.left:.0f} %',
    **{
      name: f'{good} of {count}' if count else _NONE
      for name, (good, count) in (('gold', row.gold), ('repeats', row.repeats))
    },
  }


def _number(value: float, digits: int = 2) -> str:
  return _NONE if math.isnan(value) else f'{value:.{digits}f}'.replace('-', '−')
