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
import math
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa

from rahf.annotation import compare, exports, import_rules, prefer, rich
from rahf.annotation.people import clean_name
from rahf.annotation.project import Project
from rahf.annotation.settings import COMPARE, PREFER, RICH
from rahf.annotation.tables import (
  ANNOTATORS,
  ANSWERS,
  DONE,
  ITEMS,
  LEASES,
  PROJECT,
  REVISIONS,
  TASK,
)
from rahf.errors import InputError
from rahf.fileio import table_files, validators

FORMAT = 'rahf annotations 1'
_ANSWER = (
  *('key', 'purpose', 'turn', 'status', 'value', 'flag', 'assist', 'seconds'),
  'created',
)
_REVISION = ('status', 'value', 'seconds', 'created')
_PERSON = ('name', 'role', 'rater', 'active')
_ITEM = ('uid', 'prompt', 'images', 'rater', 'gold')
# Coordinates that went through percent and back differ by far less.
_ROUNDING = 1e-6


def export(project: Project, path: pathlib.Path) -> int:
  """Writes everything into a new file; returns the number of answers.

  Raises:
    InputError: the file exists, or its folder does not.
  """
  count = 0
  with exports.new_file(path) as partial, partial.open('w') as file:
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
    InputError: the file is not an export, does not fit the project, or contradicts it.
  """
  if not path.is_file():
    raise InputError(
      f'{path} is not a file' if path.exists() else f'{path}: no such file'
    )
  return load_lines(project, _parsed(path))


def load_lines(project: Project, lines: Iterable[tuple[str, dict[str, Any]]]) -> int:
  """Adds lines, each with the place where it stands; see `load`."""
  with project.store.write(lock=True) as connection:
    return sum(_load_line(connection, project, *line) for line in lines)


def _parsed(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
  where = None
  for number, line in table_files.json_lines(path):
    first, where = where is None, f'{path}:{number}'
    try:
      values = table_files.parse_object(line)
      if first and values.get('kind') != 'project':
        # Such as the raw annotations that `export` writes by default.
        raise ValueError(
          'it is not an export of --everything, which starts with the project'
        )
    except ValueError as error:
      raise InputError(f'{where} cannot be loaded: {error}') from None
    yield where, values
  if where is None:
    raise InputError(f'{path} is empty; it is not an export of --everything')


def _load_line(
  connection: sa.Connection, project: Project, where: str, values: dict[str, Any]
) -> bool:
  """Adds what a line has; returns whether that is an answer."""
  try:
    import_rules.check(values)
    kind = values['kind']
    if kind == 'answer':
      return _load_answer(connection, project, values)
    if kind == 'project':
      _check_project(project, values)
    elif kind == 'item':
      _check_item(connection, values)
    else:
      _load_person(connection, values)
  except ValueError as error:
    raise InputError(f'{where} cannot be loaded: {error}') from None
  return False


def _check_project(project: Project, values: dict[str, Any]) -> None:
  if values['format'] != FORMAT:
    raise ValueError(f'its format is {values["format"]!r:.40}, not {FORMAT!r}')
  if values['task'] != project.settings.task:
    raise ValueError(
      f'it is an export of the task {values["task"]!r:.40}, but the task of the '
      f'project is {project.settings.task!r}'
    )


def _item(connection: sa.Connection, uid: str) -> Any:
  row = connection.execute(sa.select(ITEMS).where(ITEMS.c.uid == uid)).one_or_none()
  if row is None:
    raise ValueError(f'{uid!r:.80} is not in the project')
  return row


def _check_item(connection: sa.Connection, values: dict[str, Any]) -> None:
  row = _item(connection, values['uid'])
  for name in ('prompt', 'images'):
    if row._mapping[name] != values[name]:
      raise ValueError(f'{name} of {row.uid} differs from that in the project')


def _load_person(connection: sa.Connection, values: dict[str, Any]) -> None:
  name, rater = clean_name(values['name']), values['rater']
  known = sa.select(ANNOTATORS.c.id).where(ANNOTATORS.c.name == name)
  if connection.scalar(known) is not None:
    return
  taken = rater is not None and connection.scalar(
    sa.select(ANNOTATORS.c.name).where(ANNOTATORS.c.rater == rater)
  )
  if taken:
    raise ValueError(f'{taken} is rater {rater} in this project')
  row = {column: values[column] for column in _PERSON} | {'name': name}
  connection.execute(sa.insert(ANNOTATORS).values(**row, created=0.0))


def _load_answer(
  connection: sa.Connection, project: Project, values: dict[str, Any]
) -> bool:
  item = _item(connection, values['uid'])
  annotator = connection.scalar(
    sa.select(ANNOTATORS.c.id).where(ANNOTATORS.c.name == values['annotator'])
  )
  if annotator is None:
    raise ValueError(f'{values["annotator"]!r:.80} has no line before')
  _check_turn(project, item, values)
  values = values | {
    'value': _checked(project, item, values),
    'revisions': [
      version | {'value': _checked(project, item, version)}
      for version in values['revisions']
    ],
  }
  place = {'item': item.id, 'annotator': annotator}
  place |= {name: values[name] for name in ('purpose', 'turn')}
  if _is_stored(connection, place, values):
    return False
  row = {name: values[name] for name in _ANSWER} | place
  number = connection.scalar(sa.insert(ANSWERS).values(row).returning(ANSWERS.c.id))
  for version in values['revisions']:
    before = {name: version[name] for name in _REVISION}
    connection.execute(sa.insert(REVISIONS).values(answer=number, **before))
  # Whoever has that task open would answer it again; their page loads another. Later
  # rounds are no longer theirs either.
  del place['turn']
  connection.execute(sa.delete(LEASES).where(*_equal(LEASES, place)))
  if _completes(project, item, values):
    connection.execute(
      sa.update(ITEMS)
      .where(ITEMS.c.id == item.id)
      .values(completed=ITEMS.c.completed + 1)
    )
  return True


def _check_turn(project: Project, item: Any, values: dict[str, Any]) -> None:
  """Checks that the task has such a turn, and that purpose."""
  task, turn = project.settings.task, values['turn']
  rounds = max(len(item.images) - 1, 0) if task == PREFER else 1
  if turn >= rounds:
    raise ValueError(
      f'turn = {turn} is not there: {item.uid} has {rounds} round{"s"[: rounds != 1]}'
    )
  if task != RICH and values['purpose'] != TASK:
    raise ValueError(f'purpose = {values["purpose"]!r} is for the task {RICH!r} only')


def _is_stored(
  connection: sa.Connection, place: dict[str, Any], values: dict[str, Any]
) -> bool:
  """Returns whether an answer is in the project, now or as an earlier version.

  Raises:
    ValueError: the project has another answer with this key or at this place.
  """
  who, uid = values['annotator'], values['uid']
  row = connection.execute(
    sa.select(ANSWERS).where(ANSWERS.c.key == values['key'])
  ).one_or_none()
  if row is None:
    same = sa.select(ANSWERS.c.id).where(*_equal(ANSWERS, place))
    if connection.scalar(same) is not None:
      raise ValueError(
        f'{who} has another answer to {uid} in the project; leave this one out to keep '
        'that one'
      )
    return False
  if any(row._mapping[name] != value for name, value in place.items()):
    raise ValueError(
      f'the key {row.key}, of the answer of {who} to {uid}, is that of another answer '
      'in the project'
    )
  versions = connection.execute(
    sa.select(REVISIONS).where(REVISIONS.c.answer == row.id)
  )
  for version in (row, *versions):
    if version.status == values['status'] and _alike(version.value, values['value']):
      return True
  raise ValueError(
    f'{who} has answered {uid} otherwise in the project; leave this answer out to keep '
    'that one'
  )


def _equal(table: sa.Table, values: dict[str, Any]) -> list[sa.ColumnElement[bool]]:
  return [table.c[name] == value for name, value in values.items()]


def _alike(one: Any, other: Any) -> bool:
  """Returns whether two JSON values are equal but for rounding."""
  if isinstance(one, dict) and isinstance(other, dict):
    return one.keys() == other.keys() and all(_alike(one[k], other[k]) for k in one)
  if isinstance(one, list) and isinstance(other, list):
    return len(one) == len(other) and all(map(_alike, one, other))
  if isinstance(one, float) and isinstance(other, float):
    return math.isclose(one, other, rel_tol=0, abs_tol=_ROUNDING)
  return one == other


def _checked(project: Project, item: Any, values: dict[str, Any]) -> dict[str, Any]:
  """Returns the value of an answer, checked as if a page had sent it."""
  value = values['value']
  if values['status'] != DONE:
    return {}
  if project.settings.task == RICH:
    return rich.check(value, item.prompt)
  import_rules.check_field('choice', value.get('choice'), validators.text)
  if project.settings.task == COMPARE:
    return compare.check(value)
  shown = value.get('left'), value.get('right')
  side = validators.whole(0, len(item.images) - 1)
  if any(map(side, shown)) or shown[0] == shown[1]:
    raise ValueError(f'left, right = {shown!r:.80} are not two images of {item.uid}')
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
