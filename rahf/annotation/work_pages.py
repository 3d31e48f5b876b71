"""The HTML pages for people who answer."""

from rahf.annotation.people import Person
from rahf.annotation.project import Project
from rahf.annotation.settings import COMPARE, PREFER, RICH
from rahf.annotation.texts import all_texts
from rahf.data import schema
from rahf.drawing import html_page
from rahf.learning.study import ANSWERS

PACKAGE = 'rahf.annotation'
_ALLOWED = (
  "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)
_STYLES = [(html_page.SHARED, 'common.css'), (PACKAGE, 'annotation.css')]
_SCRIPTS = [(html_page.SHARED, 'common.js'), (PACKAGE, 'sentence.js')]
_TASK_SCRIPTS = {
  RICH: ('work', 'rich'),
  COMPARE: ('work', 'pair', 'compare'),
  PREFER: ('work', 'pair', 'prefer'),
}


def enter(language: str, *, by_name: bool) -> html_page.Page:
  """Returns the page to enter.

  Args:
    language: code of its texts.
    by_name: whether a name is enough; otherwise it takes an invitation's link.
  """
  texts = all_texts()[language]
  return html_page.compose(
    (PACKAGE, 'enter.html'),
    styles=_STYLES,
    scripts=[*_SCRIPTS, (PACKAGE, 'enter.js')],
    allowed=_ALLOWED,
    title=texts['title'],
    language=language,
    t=texts,
    by_name=by_name,
    data=html_page.embed({'texts': texts, 'by_name': by_name}),
  )


def work(project: Project, person: Person, language: str) -> html_page.Page:
  """Returns the page of the project's task."""
  task, texts = project.settings.task, all_texts()[language]
  return html_page.compose(
    (PACKAGE, 'work.html'),
    styles=_STYLES,
    scripts=[*_SCRIPTS, *((PACKAGE, f'{name}.js') for name in _TASK_SCRIPTS[task])],
    allowed=_ALLOWED,
    title=texts['title'],
    language=language,
    languages=list(all_texts()),
    t=texts,
    task=task,
    drawn=project.settings.drawn,
    name=person.name,
    scores=schema.SCORES,
    choices=list(ANSWERS),
    data=html_page.embed({'texts': texts, 'csrf': person.csrf, 'task': task}),
  )
