"""How far annotators are, and how well they answer questions whose answer is known."""

from typing import Any

import sqlalchemy as sa

from rahf.annotation import rich
from rahf.annotation.people import Person
from rahf.annotation.project import Project
from rahf.annotation.settings import COMPARE
from rahf.annotation.tables import ANSWERS, DONE, GOLD, ITEMS

# Gold questions before `Settings.passing` counts.
LEAST_GOLD = 5


def progress(project: Project, person: Person) -> dict[str, Any]:
  """Returns how much this person and everybody have done."""
  settings = project.settings
  wanted = 1 if settings.task == COMPARE else settings.answers
  with project.store.read() as connection:
    own = connection.scalar(
      sa.select(sa.func.count()).where(ANSWERS.c.annotator == person.id)
    )
    asked = sa.select(
      sa.func.count(), sa.func.coalesce(sa.func.sum(ITEMS.c.completed), 0)
    ).where(ITEMS.c.gold.is_(sa.null()))
    if settings.task == COMPARE:
      asked = asked.where(ITEMS.c.rater == person.rater)
    items, completed = connection.execute(asked).one()
  return {'own': own, 'completed': int(completed), 'wanted': items * wanted}


def failed_gold(connection: sa.Connection, project: Project, person: Person) -> bool:
  """Returns whether somebody answered too many gold questions badly."""
  if not project.settings.passing:
    return False
  found = gold_results(connection, person.id)
  passing = project.settings.passing
  return len(found) >= LEAST_GOLD and sum(found) / len(found) < passing


def gold_results(connection: sa.Connection, annotator: int) -> list[bool]:
  """Returns whether each gold question of an annotator was answered well."""
  rows = connection.execute(
    sa.select(ANSWERS.c.value, ITEMS.c.gold)
    .join(ITEMS, ITEMS.c.id == ANSWERS.c.item)
    .where(
      ANSWERS.c.annotator == annotator,
      ANSWERS.c.purpose == GOLD,
      ANSWERS.c.status == DONE,
      ITEMS.c.gold.is_not(sa.null()),  # It need not be, after an import.
    )
  )
  return [rich.agrees(value, gold) for value, gold in rows]
