"""Everything in a store as JSON lines, and back into another one.

Data format, one object per line, `kind` says which:
  project    format, task, settings
  item       uid, prompt, images, rater, gold
  annotator  name, role, rater, active
  answer     key, uid, annotator (name), purpose, turn, status, value, flag, assist,
             seconds, created, revisions ([{status, value, seconds, created}, …], the
             oldest first)
Invitations and sessions stay in the store.
"""

import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa

from rahf.annotation import compare, prefer, rich
from rahf.annotation.people import ROLES, clean_name
from rahf.annotation.project import Project
from rahf.annotation.settings import COMPARE, PREFER, RICH
from rahf.annotation.tables import (
  ANNOTATORS,
  ANSWERS,
  DONE,
  ITEMS,
  PROJECT,
  PURPOSES,
  REVISIONS,
  STATUSES,
  TASK,
)
from rahf.errors import InputError
from rahf.fileio import atomic_write, table_files

FORMAT = 'rahf annotations 1'
_ANSWER = (
  *('key', 'purpose', 'turn', 'status', 'value', 'flag', 'assist', 'seconds'),
  'created',
)
_REVISION = ('status', 'value', 'seconds', 'created')
# Types of an answer's fields, where nothing else checks them.
_KINDS = {
  **dict.fromkeys(('key', 'flag', 'assist'), (str,)),
  **dict.fromkeys(('seconds', 'created'), (int, float)),
  'turn': (int,),
}
_PERSON = ('name', 'role', 'rater', 'active')
_ITEM = ('uid', 'prompt', 'images', 'rater', 'gold')


def export(project: Project, path: pathlib.Path) -> int:
  """Writes everything; returns the number of answers."""
  count = 0
  with atomic_write.temp_then_rename(path) as partial, partial.open('w') as file:
    for line in lines(project):
      count += line['kind'] == 'answer'
      file.write(json.dumps(line, ensure_ascii=False) + '\n')
  return count


def lines(project: Project) -> Iterator[dict[str, Any]]:
  """Yields the lines of an export, all of one moment."""
  with project.store.read() as connection:
    row = connection.execute(sa.select(PROJECT)).one()
    settings = {'task': row.task, 'settings': row.settings}
    yield {'kind': 'project', 'format': FORMAT, **settings}
    for kind, table, names in (
      ('item', ITEMS, _ITEM),
      ('annotator', ANNOTATORS, _PERSON),
    ):
      for row in connection.execute(sa.select(table).order_by(table.c.id)):
        yield {'kind': kind, **{name: row._mapping[name] for name in names}}
    revisions: dict[int, list] = {}
    for row in connection.execute(sa.select(REVISIONS).order_by(REVISIONS.c.id)):
      values = {name: row._mapping[name] for name in _REVISION}
      revisions.setdefault(row.answer, []).append(values)
    query = (
      sa.select(ANSWERS, ITEMS.c.uid, ANNOTATORS.c.name)
      .join(ITEMS, ITEMS.c.id == ANSWERS.c.item)
      .join(ANNOTATORS, ANNOTATORS.c.id == ANSWERS.c.annotator)
      .order_by(ANSWERS.c.id)
    )
    for row in connection.execute(query):
      yield {
        'kind': 'answer',
        'uid': row.uid,
        'annotator': row.name,
        **{name: row._mapping[name] for name in _ANSWER},
        'revisions': revisions.get(row.id, []),
      }


def load(project: Project, path: pathlib.Path) -> int:
  """Adds the answers of an export to a project with the same items.

  Answers that the project has already are left as they are, so that loading a file
  twice changes nothing. If a line cannot be used, nothing is added.

  Returns:
    The number of answers that were added.

  Raises:
    InputError: the file is not an export, or does not fit the project.
  """
  if not path.is_file():
    raise InputError(f'{path}: no such file')
  return load_lines(project, _parsed(path))


def load_lines(project: Project, lines: Iterable[tuple[str, dict[str, Any]]]) -> int:
  """Adds lines, each with the place where it stands; see `load`."""
  with project.store.write(lock=True) as connection:
    return sum(_load_line(connection, project, *line) for line in lines)


def _parsed(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
  for number, line in table_files.json_lines(path):
    where = f'{path}:{number}'
    try:
      yield where, table_files.parse_object(line)
    except ValueError as error:
      raise InputError(f'{where} cannot be loaded: {error}') from None


def _load_line(
  connection: sa.Connection, project: Project, where: str, values: dict[str, Any]
) -> bool:
  """Adds what a line has; returns whether that is an answer."""
  try:
    kind = values['kind']
    if kind == 'project':
      if values['format'] != FORMAT or values['task'] != project.settings.task:
        raise ValueError(f'it is not a {FORMAT} of the task {project.settings.task}')
    elif kind == 'item':
      _check_item(connection, values)
    elif kind == 'annotator':
      _load_person(connection, values)
    elif kind == 'answer':
      return _load_answer(connection, project, values)
    else:
      raise ValueError(f'kind {kind!r:.40} is unknown')
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise InputError(f'{where} cannot be loaded: {error}') from None
  return False


def _check_item(connection: sa.Connection, values: dict[str, Any]) -> None:
  row = connection.execute(
    sa.select(ITEMS).where(ITEMS.c.uid == values['uid'])
  ).one_or_none()
  if row is None:
    raise ValueError(f'{values["uid"]!r:.80} is not in the project')
  for name in ('prompt', 'images'):
    if row._mapping[name] != values[name]:
      raise ValueError(f'{name} of {row.uid} differs from that in the project')


def _load_person(connection: sa.Connection, values: dict[str, Any]) -> None:
  name, role = clean_name(values['name']), values['role']
  if role not in ROLES:
    raise ValueError(f'role {role!r:.40} is unknown')
  known = sa.select(ANNOTATORS.c.id).where(ANNOTATORS.c.name == name)
  if connection.scalar(known) is not None:
    return
  taken = values['rater'] is not None and connection.scalar(
    sa.select(ANNOTATORS.c.name).where(ANNOTATORS.c.rater == values['rater'])
  )
  if taken:
    raise ValueError(f'{taken} is rater {values["rater"]} in this project')
  connection.execute(
    sa.insert(ANNOTATORS).values(
      name=name,
      role=role,
      rater=values['rater'],
      active=bool(values['active']),
      created=0.0,
    )
  )


def _load_answer(
  connection: sa.Connection, project: Project, values: dict[str, Any]
) -> bool:
  if values['purpose'] not in PURPOSES or values['status'] not in STATUSES:
    raise ValueError('its purpose or status is unknown')
  for name, kind in _KINDS.items():
    if type(values[name]) not in kind:
      raise ValueError(f'{name} is {values[name]!r:.40}')
  item = connection.execute(
    sa.select(ITEMS).where(ITEMS.c.uid == values['uid'])
  ).one_or_none()
  if item is None:
    raise ValueError(f'{values["uid"]!r:.80} is not in the project')
  annotator = connection.scalar(
    sa.select(ANNOTATORS.c.id).where(ANNOTATORS.c.name == values['annotator'])
  )
  if annotator is None:
    raise ValueError(f'{values["annotator"]!r:.80} has no line before')
  value = _checked(project, item, values)
  place = {'item': item.id, 'annotator': annotator}
  place |= {name: values[name] for name in ('purpose', 'turn')}
  same = (ANSWERS.c[name] == value for name, value in place.items())
  stored = connection.scalar(
    sa.select(ANSWERS.c.key)
    .where(sa.or_(sa.and_(*same), ANSWERS.c.key == values['key']))
    .limit(1)
  )
  if stored == values['key']:
    return False
  if stored is not None:
    raise ValueError(
      f'{values["annotator"]} has another answer to {item.uid} in the project'
    )
  row = {name: values[name] for name in _ANSWER} | place | {'value': value}
  number = connection.scalar(sa.insert(ANSWERS).values(row).returning(ANSWERS.c.id))
  for revision in values['revisions']:
    before = {name: revision[name] for name in _REVISION}
    connection.execute(sa.insert(REVISIONS).values(answer=number, **before))
  if _completes(project, item, values):
    connection.execute(
      sa.update(ITEMS)
      .where(ITEMS.c.id == item.id)
      .values(completed=ITEMS.c.completed + 1)
    )
  return True


def _checked(project: Project, item: Any, values: dict[str, Any]) -> dict[str, Any]:
  """Returns the value of an answer, checked as if a page had sent it."""
  value = values['value']
  if values['status'] != DONE:
    return {}
  if project.settings.task == RICH:
    return rich.check(value, item.prompt)
  if project.settings.task == COMPARE:
    return compare.check(value)
  shown = value['left'], value['right']
  if not all(type(side) is int and 0 <= side < len(item.images) for side in shown):
    raise ValueError(f'{shown} are not two images of {item.uid}')
  return prefer.check(value, shown)


def _completes(project: Project, item: Any, values: dict[str, Any]) -> bool:
  """Returns whether an answer is the last one that an annotator gives to an item."""
  if values['purpose'] != TASK:
    return False
  done = values['status'] == DONE
  if project.settings.task != PREFER:
    return done
  # Pools end with their last round, or when the rest is skipped.
  return values['turn'] == len(item.images) - 2 if done else values['turn'] > 0
