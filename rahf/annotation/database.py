"""Opens a project's store: SQLite in a folder, or PostgreSQL by its URL."""

import contextlib
import pathlib
import sqlite3
import threading
from collections.abc import Iterator
from importlib import resources
from typing import Any

import alembic.command
import alembic.config
import alembic.migration
import alembic.util
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from sqlalchemy.engine import make_url

from rahf.annotation.tables import PROJECT
from rahf.errors import InputError

FILE = 'answers.sqlite'
# Seconds to wait for another process that writes.
_BUSY = 20


class Database:
  """A store whose tables are of this version.

  Attributes:
    engine: SQLAlchemy's.
    is_sqlite: whether it is a file.
  """

  def __init__(self, engine: sa.Engine):
    """Wraps an engine; `open_database` also migrates."""
    self.engine = engine
    self.is_sqlite = engine.dialect.name == 'sqlite'
    # SQLite has one writer at a time. Threads queue here in order; its own waiting
    # sleeps and tries again, which is slower and unfair.
    self._turn = threading.Lock() if self.is_sqlite else contextlib.nullcontext()

  @contextlib.contextmanager
  def read(self) -> Iterator[sa.Connection]:
    """Yields a connection that sees one state of the store."""
    # SQLite's transactions always do.
    options = {} if self.is_sqlite else {'isolation_level': 'REPEATABLE READ'}
    with self.engine.connect() as plain:
      connection = plain.execution_options(**options)
      with connection.begin():
        yield connection

  @contextlib.contextmanager
  def write(self, *, lock: bool = False) -> Iterator[sa.Connection]:
    """Yields a connection whose changes are on disk once the block has ended.

    Args:
      lock: let no other writer that asks for this run at the same time.
    """
    options = {'sqlite_begin': 'IMMEDIATE'}
    with self._turn, self.engine.connect() as plain:
      connection = plain.execution_options(**options)
      with connection.begin():
        if lock:  # SQLite's transaction has locked the file already.
          connection.execute(sa.select(PROJECT.c.id).with_for_update())
        yield connection

  def close(self) -> None:
    """Closes all connections."""
    self.engine.dispose()


def address(folder: pathlib.Path, url: str) -> sa.URL:
  """Returns the URL of a store.

  Args:
    folder: of the project.
    url: '' for SQLite in the folder.

  Raises:
    InputError: it is not a URL of PostgreSQL or SQLite.
  """
  if not url:
    return sa.URL.create('sqlite', database=str(folder / FILE))
  try:
    found = make_url(url)
  except (sa.exc.ArgumentError, ValueError):  # ValueError: of the port.
    raise InputError(
      '--store is not a URL; give one such as postgresql://USER:PASSWORD@HOST/NAME'
    ) from None
  if found.drivername == 'sqlite' and found.database not in (None, '', ':memory:'):
    return found
  if found.drivername not in ('postgresql', 'postgresql+psycopg'):
    raise InputError(
      f'--store: {found.drivername} is not supported; give a URL that starts with '
      'postgresql:// or sqlite:///'
    )
  return found.set(drivername='postgresql+psycopg')


def open_database(url: sa.URL) -> Database:
  """Connects, and creates or updates the tables.

  Raises:
    InputError: it cannot be opened, or was written by a later version.
  """
  shown = url.render_as_string(hide_password=True)
  try:
    engine = _engine(url)
    database = Database(engine)
    with database.write() as connection:
      if not database.is_sqlite:
        # Of two servers that start at once, one creates the tables.
        connection.execute(sa.text('SELECT pg_advisory_xact_lock(7244)'))
      _migrate(connection)
  except ModuleNotFoundError:
    raise InputError(
      "--store: PostgreSQL needs psycopg: pip install 'rahf[postgres]'"
    ) from None
  except alembic.util.CommandError:
    raise InputError(
      f'the store {shown} was written by a later version of rahf; update rahf'
    ) from None
  except sa.exc.DBAPIError as error:
    raise InputError(f'cannot open the store {shown}: {_line(error)}') from None
  return database


@contextlib.contextmanager
def failures() -> Iterator[None]:
  """Turns failures of the store, such as a full disk, into errors for users.

  Raises:
    InputError: the store failed; what was not finished is not in it.
  """
  try:
    yield
  except sa.exc.DBAPIError as error:
    raise InputError(
      f'the store failed: {_line(error)}; when it works again, run the same command'
    ) from None


def _line(error: sa.exc.DBAPIError) -> str:
  return ' '.join(str(error.orig).split())


def _engine(url: sa.URL) -> sa.Engine:
  if url.get_backend_name() != 'sqlite':
    # Servers restart and proxies close idle connections.
    return sa.create_engine(url, pool_pre_ping=True, pool_size=20, max_overflow=20)
  engine = sa.create_engine(
    url, connect_args={'timeout': _BUSY}, pool_size=20, max_overflow=20
  )
  sa.event.listen(engine, 'connect', _set_up_sqlite)
  sa.event.listen(engine, 'begin', _begin_sqlite)
  return engine


def _set_up_sqlite(connection: sqlite3.Connection, record: Any) -> None:
  del record
  # Transactions start with our own BEGIN.
  connection.isolation_level = None
  for pragma in (
    'journal_mode = WAL',
    # Answers survive a power failure too.
    'synchronous = FULL',
    'foreign_keys = ON',
  ):
    connection.execute(f'PRAGMA {pragma}')


def _begin_sqlite(connection: sa.Connection) -> None:
  # A transaction that reads before it writes must have the lock from its start, as it
  # would fail otherwise if another one has written in between.
  kind = connection.get_execution_options().get('sqlite_begin', '')
  connection.exec_driver_sql(f'BEGIN {kind}')


def _migrate(connection: sa.Connection) -> None:
  config = alembic.config.Config()
  folder = resources.files('rahf.annotation') / 'migrations'
  config.set_main_option('script_location', str(folder).replace('%', '%%'))
  config.attributes['connection'] = connection
  newest = ScriptDirectory.from_config(config).get_current_head()
  context = alembic.migration.MigrationContext.configure(connection)
  if context.get_current_revision() != newest:
    alembic.command.upgrade(config, 'head')
