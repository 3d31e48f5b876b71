"""A project: what is asked, of whom, and the store of the answers."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from rahf.annotation import database, settings
from rahf.annotation.database import Database
from rahf.annotation.items import Item
from rahf.annotation.settings import Settings
from rahf.annotation.tables import ANSWERS, ITEMS, PROJECT
from rahf.data import label_words, schema
from rahf.data.labels import raw
from rahf.data.labels.consolidate import Annotation, word_positions
from rahf.errors import InputError


class Project(NamedTuple):
  """An open project.

  Attributes:
    store: its database.
    settings: as stored.
    created: seconds since 1970.
  """

  store: Database
  settings: Settings
  created: float

  @property
  def name(self) -> str:
    """A name of letters and digits that other projects hardly have."""
    return hashlib.sha256(repr(self.created).encode()).hexdigest()[:12]

  @property
  def images(self) -> pathlib.Path:
    """The folder of images."""
    return pathlib.Path(self.settings.images)


def open_store(folder: pathlib.Path, url: str = '', *, new: bool = False) -> Database:
  """Opens the store of a project.

  Args:
    folder: of the project.
    url: of the store; '' for SQLite in the folder.
    new: create it if it does not exist.

  Raises:
    InputError: there is none, or it cannot be opened.
  """
  if not url and not new and not (folder / database.FILE).is_file():
    raise InputError(
      f'{folder} has no project; `python -m rahf.annotate serve` starts one with '
      '--task, --images and --prompts. If its store is elsewhere, give --store'
    )
  if new:
    folder.mkdir(parents=True, exist_ok=True)
  return database.open_database(database.address(folder, url))


def load(store: Database) -> Project:
  """Returns the project in a store.

  Raises:
    InputError: it has none.
  """
  with store.read() as connection:
    row = connection.execute(sa.select(PROJECT)).one_or_none()
  if row is None:
    raise InputError('the store has no project yet; start it with --task and --images')
  return Project(store, Settings(**row.settings), row.created)


def exists(store: Database) -> bool:
  """Returns whether a store has a project."""
  with store.read() as connection:
    return connection.execute(sa.select(PROJECT.c.id)).first() is not None


def create(store: Database, wanted: Settings, items: Sequence[Item]) -> Project:
  """Writes a new project; of two servers that start at once, one does it.

  Raises:
    InputError: the store got another project meanwhile.
  """
  now = time.time()
  row = {'id': 1, 'task': wanted.task, 'settings': dataclasses.asdict(wanted)}
  try:
    with store.write() as connection:
      connection.execute(sa.insert(PROJECT).values(**row, created=now))
      _insert(connection, items, 0)
  except sa.exc.IntegrityError:
    raise InputError(
      'another server has just made a project in this store; start again to join it'
    ) from None
  return Project(store, wanted, now)


def update(
  project: Project, given: dict[str, Any], items: Sequence[Item] | None
) -> tuple[Project, int]:
  """Changes settings and adds new items of the table.

  Args:
    given: settings to change.
    items: the items of the table now; None if no table was given.

  Returns:
    The project, and the number of items that were added.

  Raises:
    InputError: a setting cannot be changed; or an item that people were asked about has
      changed or vanished.
  """
  wanted = settings.changed(project.settings, given)
  with project.store.write(lock=True) as connection:
    added = [] if items is None else _added(connection, wanted, items)
    _insert(connection, added, len(items or ()))
    connection.execute(sa.update(PROJECT).values(settings=dataclasses.asdict(wanted)))
  return project._replace(settings=wanted), len(added)


def set_gold(project: Project, path: pathlib.Path) -> int:
  """Makes gold questions of images whose answers are known; returns their number.

  Args:
    path: raw annotations (`rahf.data.labels.raw`), one for each image.

  Raises:
    InputError: it cannot be read, has an unknown image, or two answers for one.
  """
  if project.settings.task != settings.RICH:
    raise InputError(f'--gold_file is for --task={settings.RICH}')
  if not path.is_file():
    raise InputError(f'--gold_file {path}: no such file')
  known = raw.read(path)
  with project.store.write(lock=True) as connection:
    rows = connection.execute(sa.select(ITEMS.c.uid, ITEMS.c.prompt))
    prompts = {row.uid: row.prompt for row in rows}
    for uid, annotations in known.items():
      if uid not in prompts:
        raise InputError(f'--gold_file {path}: {uid} is not an image of the project')
      if len(annotations) > 1:
        raise InputError(f'--gold_file {path}: {uid} has several answers; keep one')
      try:
        gold = _gold(annotations[0], prompts[uid])
      except InputError as error:
        raise InputError(f'--gold_file {path}: {uid}: {error}') from None
      connection.execute(sa.update(ITEMS).where(ITEMS.c.uid == uid).values(gold=gold))
  return len(known)


def _gold(annotation: Annotation, prompt: str) -> dict[str, Any]:
  """Returns a known answer in the form of answers, words as positions."""
  values = annotation._asdict()
  del values['trust']
  if (words := annotation.misaligned_words) is not None:
    tokens = label_words.label_tokens(prompt)
    values['misaligned_words'] = sorted(word_positions(words, tokens))
  values['scores'] = dict(zip(schema.SCORES, annotation.scores, strict=True))
  return json.loads(json.dumps(values))


def _added(
  connection: sa.Connection, wanted: Settings, items: Sequence[Item]
) -> list[Item]:
  """Returns the items that are not stored yet."""
  if wanted.drawn:  # Of prompts, that people add too; images come later.
    known = set(connection.scalars(sa.select(ITEMS.c.uid)))
    return [item for item in items if item.uid not in known]
  rows = {row.uid: row for row in connection.execute(sa.select(ITEMS))}
  given = {item.uid: item for item in items}
  asked = set(connection.scalars(sa.select(ANSWERS.c.item).distinct()))
  for uid, row in rows.items():
    now = given.get(uid)
    stored = Item(uid, row.prompt, row.images, row.rater)
    if now != stored:
      what = 'is no longer in the table' if now is None else 'has changed in the table'
      answered = 'has answers' if row.id in asked else 'is part of the project'
      raise InputError(
        f'{uid} {what}, but {answered}: {_difference(stored, now)}; restore the table, '
        'or start another project'
      )
  return [item for uid, item in given.items() if uid not in rows]


def _difference(stored: Item, now: Item | None) -> str:
  if now is None:
    return f'prompt {stored.prompt!r:.80}'
  for name, before, after in zip(stored._fields, stored, now, strict=True):
    if before != after:
      return f'{name} was {before!r:.80} and is {after!r:.80}'
  raise AssertionError(stored)


def _insert(connection: sa.Connection, items: Sequence[Item], first: int) -> None:
  rows = [
    item._asdict()
    | {'position': first + number, 'ready': bool(item.images)}
    | {'priority': 0.0, 'completed': 0}
    for number, item in enumerate(items)
  ]
  if rows:
    connection.execute(sa.insert(ITEMS), rows)


@contextlib.contextmanager
def opened(folder: pathlib.Path, url: str = '') -> Iterator[Project]:
  """Yields an existing project, and closes its store in the end.

  Raises:
    InputError: there is none.
  """
  store = open_store(folder, url)
  try:
    with database.failures():
      yield load(store)
  finally:
    store.close()
