"""Gives tasks to annotators and stores their answers."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from rahf.annotation import assignment, compare, predictions, prefer, rich, standing
from rahf.annotation.assignment import Lease
from rahf.annotation.people import Person
from rahf.annotation.project import Project
from rahf.annotation.settings import COMPARE, PREFER, RICH
from rahf.annotation.tables import (
  ANSWERS,
  DONE,
  ITEMS,
  LEASES,
  REVISIONS,
  SKIPPED,
  TASK,
)
from rahf.errors import InputError
from rahf.fileio import text_files

LONGEST_FLAG = 500
# A page that was open overnight does not count as work.
MOST_SECONDS = 3600.0


class ConflictError(Exception):
  """The annotator's task is not what the page shows; it should load another."""


class Answer(NamedTuple):
  """What a page sends.

  Attributes:
    key: drawn at random by the page, the same if the answer is sent again.
    value: the answer itself.
    status: DONE or SKIPPED.
    flag: what is wrong with the task, for whoever runs the project; '' for nothing.
    seconds: of work.
    turn: of the task, so that an old page does not answer a later round.
  """

  key: str
  value: Any
  status: str = DONE
  flag: str = ''
  seconds: float = 0.0
  turn: int = 0


def next_task(project: Project, person: Person) -> dict[str, Any] | None:
  """Returns what the page shows next; None if nothing is left for this person."""
  if not person.active:
    return None
  with project.store.write(lock=True) as connection:
    if standing.failed_gold(connection, project, person):
      return None
    while lease := assignment.take(connection, project, person):
      if view := _view(connection, project, person, lease):
        return view
      # A server that stopped between two rounds may leave a lease after the last one.
      assignment.release(connection, lease)
  return None


def save_draft(project: Project, person: Person, lease: int, value: Any) -> bool:
  """Keeps an unfinished answer; returns whether the task is still this person's.

  Raises:
    InputError: the draft is impossible.
  """
  with project.store.write() as connection:
    row = _leased(connection, person, lease)
    if row is None:
      return False
    if project.settings.task == RICH:
      value = rich.check_draft(value, _item(connection, row.item).prompt)
    else:
      value = None
    # A skew between two servers' clocks must not shorten a lease.
    expires = max(row.expires, time.time() + 60 * project.settings.minutes)
    connection.execute(
      sa.update(LEASES).where(LEASES.c.id == lease).values(draft=value, expires=expires)
    )
  return True


def submit(project: Project, person: Person, lease: int, answer: Answer) -> int:
  """Stores an answer and returns its number.

  Once it returns, the answer is on disk. An answer with a key that is stored already
  changes nothing.

  Raises:
    InputError: the answer cannot be used.
    ConflictError: the task has been answered otherwise, as in another tab.
  """
  _check(answer)
  with project.store.write(lock=True) as connection:
    stored = connection.execute(
      sa.select(ANSWERS).where(ANSWERS.c.key == answer.key)
    ).one_or_none()
    if stored is not None:
      if stored.annotator != person.id:
        raise ConflictError('this key belongs to another answer')
      return stored.id
    found = _leased(connection, person, lease)
    if (
      found is None
      or found.turn != answer.turn
      or assignment.has_answer(connection, found)
    ):
      raise ConflictError('this task has been answered already, perhaps in another tab')
    item = _item(connection, found.item)
    value = _checked(connection, project, person, item, found.turn, answer)
    now = time.time()
    number = connection.scalar(
      sa.insert(ANSWERS)
      .values(
        key=answer.key,
        item=item.id,
        annotator=person.id,
        purpose=found.purpose,
        turn=found.turn,
        status=answer.status,
        value=value,
        flag=answer.flag.strip(),
        assist=found.assist,
        seconds=_seconds(answer, now - found.started),
        created=now,
      )
      .returning(ANSWERS.c.id)
    )
    _finish(connection, project, person, item, found, answer.status)
  return number


def last_answer(project: Project, person: Person) -> dict[str, Any] | None:
  """Returns the latest answer with its task, to be changed; None if there is none."""
  with project.store.read() as connection:
    row = connection.execute(_latest(person)).first()
    if row is None:
      return None
    lease = Lease(0, row.item, person.id, row.purpose, row.turn, 0, 0, row.value, '')
    view = _view(connection, project, person, lease)
    return view and {**view, 'answer': row.id, 'status': row.status, 'flag': row.flag}


def revise(project: Project, person: Person, number: int, answer: Answer) -> None:
  """Changes an annotator's latest answer; what it was before is kept.

  Raises:
    InputError: the answer cannot be used.
    ConflictError: it is not their latest.
  """
  _check(answer)
  with project.store.write(lock=True) as connection:
    row = connection.execute(_latest(person)).first()
    if row is None or row.id != number:
      raise ConflictError('only the latest answer can be changed')
    if project.settings.task == PREFER and answer.status != row.status:
      raise InputError('a choice can be changed, but not skipped afterwards')
    item = _item(connection, row.item)
    value = _checked(connection, project, person, item, row.turn, answer)
    before = {name: row._mapping[name] for name in ('status', 'value', 'seconds')}
    flag = answer.flag.strip()
    if (value, answer.status, flag) == (row.value, row.status, row.flag):
      return  # Sent again.
    connection.execute(
      sa.insert(REVISIONS).values(answer=number, created=row.created, **before)
    )
    connection.execute(
      sa.update(ANSWERS)
      .where(ANSWERS.c.id == number)
      .values(
        value=value,
        status=answer.status,
        flag=flag,
        seconds=min(row.seconds + _seconds(answer, MOST_SECONDS), MOST_SECONDS),
        created=time.time(),
      )
    )
    if row.purpose == TASK and project.settings.task != PREFER:
      change = (answer.status == DONE) - (row.status == DONE)
      _complete(connection, project, item, change)


def prediction_after(project: Project, number: int) -> dict[str, Any] | None:
  """Returns what the model says about the image of an answer, if it is shown then."""
  query = (
    sa.select(ANSWERS.c.assist, ANSWERS.c.status, ITEMS)
    .join(ITEMS, ITEMS.c.id == ANSWERS.c.item)
    .where(ANSWERS.c.id == number)
  )
  with project.store.read() as connection:
    row = connection.execute(query).one()
  # Who has skipped an image may still answer it, with Back.
  if row.assist != 'after' or row.status != DONE or row.prediction is None:
    return None
  shown = {name: row.prediction[name] for name in (*rich.LISTS, 'scores')}
  return {'item': row.id, **rich.view(row.prompt), **shown}


def _view(
  connection: sa.Connection, project: Project, person: Person, lease: Lease
) -> dict[str, Any] | None:
  """Returns what a page shows of a task; None if no round is left.

  Purposes and names of models are not part of it.
  """
  item = _item(connection, lease.item)
  view = {
    'lease': lease.id,
    'item': item.id,
    'turn': lease.turn,
    'prompt': item.prompt,
    'images': list(range(len(item.images))),
    'draft': lease.draft,
  }
  if project.settings.task == RICH:
    return view | rich.view(item.prompt)
  if project.settings.task == PREFER:
    shown = _pair(connection, project, person, item, lease.turn)
    if shown is None:
      return None
    view |= {'images': list(shown), 'rounds': len(item.images) - 1}
  return view


def _pair(
  connection: sa.Connection, project: Project, person: Person, item: Any, turn: int
) -> tuple[int, int] | None:
  earlier = connection.scalars(
    sa.select(ANSWERS.c.value)
    .where(
      ANSWERS.c.item == item.id,
      ANSWERS.c.annotator == person.id,
      ANSWERS.c.turn < turn,
    )
    .order_by(ANSWERS.c.turn)
  ).all()
  seed = f'{project.settings.seed} {item.id} {person.id}'
  return prefer.pair(len(item.images), seed, earlier)


def _checked(
  connection: sa.Connection,
  project: Project,
  person: Person,
  item: Any,
  turn: int,
  answer: Answer,
) -> Mapping[str, Any]:
  if answer.status == SKIPPED:
    return {}
  if project.settings.task == RICH:
    return rich.check(answer.value, item.prompt)
  if project.settings.task == COMPARE:
    return compare.check(answer.value)
  shown = _pair(connection, project, person, item, turn)
  if shown is None:
    raise ConflictError('no round is left')
  return prefer.check(answer.value, shown)


def _finish(
  connection: sa.Connection,
  project: Project,
  person: Person,
  item: Any,
  lease: Lease,
  status: str,
) -> None:
  """Ends the lease, or continues it with the next round."""
  following = lease.turn + 1
  if (
    project.settings.task == PREFER
    and status == DONE
    and _pair(connection, project, person, item, following)
  ):
    assignment.next_turn(connection, project, lease, following)
    return
  assignment.release(connection, lease)
  if lease.purpose == TASK and (status == DONE or lease.turn > 0):
    _complete(connection, project, item, 1)


def _complete(
  connection: sa.Connection, project: Project, item: Any, change: int
) -> None:
  connection.execute(
    sa.update(ITEMS)
    .where(ITEMS.c.id == item.id)
    .values(completed=ITEMS.c.completed + change)
  )
  if project.settings.order == 'disagreement' and item.prediction:
    predictions.rank(connection, item)


def _latest(person: Person) -> sa.Select:
  return (
    sa.select(ANSWERS)
    .where(ANSWERS.c.annotator == person.id)
    .order_by(ANSWERS.c.id.desc())
    .limit(1)
  )


def _leased(connection: sa.Connection, person: Person, lease: int) -> Lease | None:
  row = connection.execute(
    sa.select(LEASES).where(LEASES.c.id == lease, LEASES.c.annotator == person.id)
  ).one_or_none()
  return row and Lease(*row)


def _item(connection: sa.Connection, number: int) -> Any:
  return connection.execute(sa.select(ITEMS).where(ITEMS.c.id == number)).one()


def _check(answer: Answer) -> None:
  if answer.status not in (DONE, SKIPPED):
    raise InputError(f'status is neither {DONE} nor {SKIPPED}')
  if not 16 <= len(answer.key) <= 64 or not answer.key.isascii():
    raise InputError('the key has 16 to 64 ASCII characters')
  if len(answer.flag) > LONGEST_FLAG:
    raise InputError(f'the remark has more than {LONGEST_FLAG} characters')
  try:
    text_files.check(answer.flag)
    answer.flag.encode()
  except ValueError as error:
    raise InputError(f'the remark cannot be stored: {error}') from None


def _seconds(answer: Answer, most: float) -> float:
  """Returns the seconds of work, no more than have passed."""
  # The clocks of two servers may differ.
  return round(max(min(answer.seconds, most, MOST_SECONDS), 0.0), 2)
