"""Decides who is asked what, and keeps it for them for a while.

Each item is asked of `Settings.answers` people, nobody twice, and the items that lack
fewest answers come first, so that they are complete early. A lease keeps a task for its
annotator; one that has expired frees the place, but an answer that still comes is
stored all the same.
"""

import hashlib
import random
import time
from typing import Any, NamedTuple

import sqlalchemy as sa

from rahf.annotation import predictions
from rahf.annotation.people import Person
from rahf.annotation.project import Project
from rahf.annotation.settings import COMPARE, RICH
from rahf.annotation.tables import ANSWERS, DONE, GOLD, ITEMS, LEASES, REPEAT, TASK

# Tasks between an image and its repeat, so that it is half forgotten.
REPEAT_GAP = 10


class Lease(NamedTuple):
  """A task that is kept for an annotator; see `tables.LEASES`."""

  id: int
  item: int
  annotator: int
  purpose: str
  turn: int
  started: float
  expires: float
  draft: Any
  assist: str


def take(connection: sa.Connection, project: Project, person: Person) -> Lease | None:
  """Returns an annotator's task: the one that they have begun, or another.

  Args:
    connection: that has locked the project.

  Returns:
    The task; None if there is none for them.
  """
  now = time.time()
  row = connection.execute(
    sa.select(LEASES).where(LEASES.c.annotator == person.id)
  ).one_or_none()
  if row is not None:
    lease = Lease(*row)
    held = lease.expires > now or _is_free(connection, project, lease, now)
    if held and not has_answer(connection, lease):
      return _extend(connection, project, lease, now)
    release(connection, lease)
  count = connection.scalar(
    sa.select(sa.func.count()).where(ANSWERS.c.annotator == person.id)
  )
  for purpose in (GOLD, REPEAT):
    if _is_due(project, person, purpose, count):
      query = _gold(person) if purpose == GOLD else _repeats(person)
      if _asked(connection, person, purpose) < project.settings.limit and (
        item := connection.scalar(query.limit(1))
      ):
        return _lease(connection, project, person, item, purpose, now)
  item = connection.scalar(_open_items(project, person, now).limit(1))
  if item is None:
    return None
  return _lease(connection, project, person, item, TASK, now)


def next_turn(
  connection: sa.Connection, project: Project, lease: Lease, turn: int
) -> None:
  """Keeps an item for its annotator for another round."""
  now = time.time()
  connection.execute(
    sa.update(LEASES)
    .where(LEASES.c.id == lease.id)
    .values(turn=turn, started=now, expires=_end(project, now), draft=None)
  )


def has_answer(connection: sa.Connection, lease: Lease) -> bool:
  """Returns whether the answer of a task is there already, as after an import."""
  query = sa.select(ANSWERS.c.id).where(
    ANSWERS.c.item == lease.item,
    ANSWERS.c.annotator == lease.annotator,
    ANSWERS.c.purpose == lease.purpose,
    ANSWERS.c.turn == lease.turn,
  )
  return connection.execute(query).first() is not None


def release(connection: sa.Connection, lease: Lease) -> None:
  """Ends a lease."""
  connection.execute(sa.delete(LEASES).where(LEASES.c.id == lease.id))


def _extend(
  connection: sa.Connection, project: Project, lease: Lease, now: float
) -> Lease:
  expires = _end(project, now)
  connection.execute(
    sa.update(LEASES).where(LEASES.c.id == lease.id).values(expires=expires)
  )
  return lease._replace(expires=expires)


def _lease(
  connection: sa.Connection,
  project: Project,
  person: Person,
  item: int,
  purpose: str,
  now: float,
) -> Lease:
  assist, prediction = '', None
  if purpose == TASK and project.settings.assist:
    query = sa.select(ITEMS.c.prediction).where(ITEMS.c.id == item)
    if prediction := connection.scalar(query):
      assist = project.settings.assist
  values = {
    'item': item,
    'annotator': person.id,
    'purpose': purpose,
    'turn': 0,
    'started': now,
    'expires': _end(project, now),
    'draft': predictions.as_draft(prediction) if assist == 'start' else None,
    'assist': assist,
  }
  number = connection.scalar(sa.insert(LEASES).values(values).returning(LEASES.c.id))
  return Lease(number, **values)


def _end(project: Project, now: float) -> float:
  return now + 60 * project.settings.minutes


def _open_items(project: Project, person: Person, now: float) -> sa.Select:
  """Selects the items that an annotator can be asked about, in order."""
  held = (
    sa.select(sa.func.count())
    .where(
      LEASES.c.item == ITEMS.c.id,
      LEASES.c.purpose == TASK,
      LEASES.c.expires > now,
      LEASES.c.annotator != person.id,
    )
    .scalar_subquery()
  )
  answered = sa.exists().where(
    ANSWERS.c.item == ITEMS.c.id, ANSWERS.c.annotator == person.id
  )
  wanted = 1 if project.settings.task == COMPARE else project.settings.answers
  query = sa.select(ITEMS.c.id).where(
    ITEMS.c.completed + held < wanted,
    ITEMS.c.gold.is_(sa.null()),
    ITEMS.c.ready,
    ~answered,
  )
  if project.settings.task == COMPARE:
    query = query.where(ITEMS.c.rater == person.rater)
  # The order of an index, so that the first one is found without looking at all.
  return query.order_by(
    ITEMS.c.priority.desc(), ITEMS.c.completed.desc(), ITEMS.c.position
  )


def _gold(person: Person) -> sa.Select:
  """Selects the gold questions that an annotator has not seen."""
  seen = sa.select(ANSWERS.c.item).where(ANSWERS.c.annotator == person.id)
  return (
    sa.select(ITEMS.c.id)
    .where(ITEMS.c.gold.is_not(sa.null()), ITEMS.c.id.not_in(seen))
    .order_by(ITEMS.c.position)
  )


def _repeats(person: Person) -> sa.Select:
  """Selects the items that an annotator answered a while ago, and only once."""
  repeated = sa.select(ANSWERS.c.item).where(
    ANSWERS.c.annotator == person.id, ANSWERS.c.purpose == REPEAT
  )
  recent = (
    sa.select(ANSWERS.c.item)
    .where(ANSWERS.c.annotator == person.id)
    .order_by(ANSWERS.c.id.desc())
    .limit(REPEAT_GAP)
  )
  return (
    sa.select(ANSWERS.c.item)
    .where(
      ANSWERS.c.annotator == person.id,
      ANSWERS.c.purpose == TASK,
      ANSWERS.c.status == DONE,
      ANSWERS.c.item.not_in(repeated),
      ANSWERS.c.item.not_in(recent),
    )
    .order_by(ANSWERS.c.id)
  )


def _is_free(
  connection: sa.Connection, project: Project, lease: Lease, now: float
) -> bool:
  """Returns whether the place of an expired lease is still free."""
  if lease.purpose != TASK or lease.turn > 0:
    return True
  others = connection.scalar(
    sa.select(sa.func.count()).where(
      LEASES.c.item == lease.item,
      LEASES.c.purpose == TASK,
      LEASES.c.expires > now,
      LEASES.c.id != lease.id,
    )
  )
  row = connection.execute(sa.select(ITEMS).where(ITEMS.c.id == lease.item)).one()
  wanted = 1 if project.settings.task == COMPARE else project.settings.answers
  return row.completed + others < wanted


def _is_due(project: Project, person: Person, purpose: str, count: int) -> bool:
  """Returns whether the next task is a repeat, or a gold question, by chance.

  Chance depends on the arguments alone, so that loading the page again draws the same.
  """
  found = project.settings
  share = found.gold if purpose == GOLD else found.repeats
  if not share or found.task != RICH:
    return False
  seed = f'{found.seed} {purpose} {person.id} {count}'
  digest = hashlib.sha256(seed.encode()).digest()
  return random.Random(digest).random() < share


def _asked(connection: sa.Connection, person: Person, purpose: str) -> int:
  return connection.scalar(
    sa.select(sa.func.count()).where(
      ANSWERS.c.annotator == person.id, ANSWERS.c.purpose == purpose
    )
  )
