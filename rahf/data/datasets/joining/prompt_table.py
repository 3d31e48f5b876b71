"""Reads tables of prompts, which name images by path or uid.

Columns: `prompt` or `caption`; and the image's path (`image`, `path`, `file_name` or
`filename`) or its uid (`uid` or `id`). Others are ignored.

How names match files:
  a.png or a           every file of that name, in any folder
  m1/a.png or m1/a     that file, relative to the folder of the images or of the table
If any name in a table has a folder, all are paths, and a.png is the file at the top.
"""

import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from rahf.data.images import files
from rahf.errors import InputError
from rahf.fileio import table_files, text_files
from rahf.fileio.table_files import IMAGES, PROMPTS, UIDS, shown


class Row(NamedTuple):
  """One row of a table.

  Attributes:
    uid, path: how it names the image; one of them may be ''.
    prompt: not empty.
    extra: of the further column; None if there is none.
  """

  uid: str
  path: str
  prompt: str
  extra: str | None = None


class Columns(NamedTuple):
  """The names of the columns; None for a missing one."""

  uid: str | None
  path: str | None
  prompt: str
  extra: str | None


def read(table: os.PathLike | str, extra: str = '') -> Iterator[Row]:
  """Yields the rows of a CSV, TSV, JSONL or parquet table that have a prompt.

  Args:
    extra: a further column of text to read, which may be missing.

  Raises:
    InputError: the file is missing, damaged or of another kind, lacks a column, or has
      a row that does not name an image.
  """
  path = pathlib.Path(table)
  readers = {
    '.csv': _delimited,
    '.tsv': _delimited,
    '.jsonl': _json_lines,
    '.parquet': _parquet,
  }
  if not path.is_file():
    raise InputError(f'--prompts {path}: no such file')
  if path.suffix.lower() not in readers:
    raise InputError(
      f'--prompts {path}: the name must end in one of {", ".join(readers)}'
    )
  yield from readers[path.suffix.lower()](path, extra)


def uid_of(row: Row) -> str:
  """Returns the uid, or else the file name without folder and extension.

  A name without an extension may contain dots.
  """
  path = pathlib.PurePosixPath(row.path)
  return row.uid or (path.stem if files.is_image(path) else path.name)


class Found(NamedTuple):
  """What a table says about a file; see `Row`."""

  prompt: str
  extra: str | None


class FilePrompts:
  """A table's prompts for the files below a folder, held in memory."""

  def __init__(self, table: pathlib.Path, folder: pathlib.Path, extra: str = ''):
    """Reads the table.

    Args:
      extra: as for `read`.

    Raises:
      InputError: as for `read`, or one name has two prompts.
    """
    self._roots = (os.path.abspath(folder), os.path.abspath(table.parent))
    self._prompts: dict[str, Found] = {}
    for row in read(table, extra):
      name = row.path or row.uid
      found = Found(row.prompt, row.extra)
      if self._prompts.setdefault(normal(name), found) != found:
        raise InputError(
          f'--prompts {table}: two prompts for {name!r}; name each image once, by its '
          'path relative to the image folder'
        )
    self._are_paths = any(map(has_folder, self._prompts))

  def example(self) -> str:
    """Returns the first name in the table, '' if there is none."""
    return next(iter(self._prompts), '')

  def find(self, file: pathlib.Path) -> Found | None:
    """Returns the prompt of a file, None if there is none.

    Raises:
      ValueError: the table has several, under different names.
    """
    if self._are_paths:
      names = names_of_path(os.path.abspath(file), *self._roots)
    else:
      names = with_and_without_extension(file.name)
    found = {name: self._prompts[name] for name in names if name in self._prompts}
    if len(set(found.values())) > 1:
      raise ValueError(f'the table has several prompts for it: {", ".join(found)}')
    return next(iter(found.values()), None)


def has_folder(name: str) -> bool:
  """Returns whether a name in a table is a path with a folder."""
  return '/' in normal(name)


def normal(name: str) -> str:
  """Returns a normalised path, such as a.png for ./a.png."""
  return os.path.normpath(os.path.expanduser(name))


def names_of_path(file: str, *roots: str) -> list[str]:
  """Returns the names that a table of paths can use for a file.

  Args:
    file: an absolute path.
    roots: absolute folders that paths may be relative to.
  """
  relative = (os.path.relpath(file, root) for root in roots)
  return with_and_without_extension(file, *relative)


def with_and_without_extension(*paths: str) -> list[str]:
  """Returns the paths, followed by each without its extension."""
  return [*paths, *(os.path.splitext(path)[0] for path in paths)]


def _delimited(path: pathlib.Path, extra: str) -> Iterator[Row]:
  file = table_files.Delimited(path)
  header = file.header()
  columns = None
  for line, values in file.rows():
    columns = columns or _columns(f'--prompts {path}, line 1', header, extra)
    yield from _row(f'--prompts {path}, line {line}', values, columns)


def _json_lines(path: pathlib.Path, extra: str) -> Iterator[Row]:
  for line, text in table_files.json_lines(path):
    where = f'--prompts {path}, line {line}'
    try:
      values = table_files.parse_object(text)
    except ValueError as error:
      raise InputError(f'{where}: {error}') from None
    yield from _row(where, values, _columns(where, [*values], extra))


def _parquet(path: pathlib.Path, extra: str) -> Iterator[Row]:
  table_files.check_pyarrow()
  from rahf.fileio import parquet

  with parquet.open_file(path) as file:
    fields = file.schema_arrow
  # A column that contains the images themselves does not name them.
  images = [f for f in fields if f.name in IMAGES and parquet.KINDS['file'](f.type)]
  names = [f.name for f in fields if f not in images]
  columns = _columns(f'--prompts {path}', names, extra)
  for row, values in parquet.light_rows(path, {name for name in columns if name}):
    yield from _row(f'--prompts {path}, {row}', values, columns)


def _columns(where: str, names: list[str], extra: str) -> Columns:
  prompt, path, uid = (
    table_files.first_column(where, known, names) for known in (PROMPTS, IMAGES, UIDS)
  )
  # Next to a path, an `id` numbers the rows.
  if path and uid == 'id':
    uid = None
  if prompt is None or not (uid or path):
    raise InputError(
      f'{where}: needs uid (or {", ".join(IMAGES)}) and {" or ".join(PROMPTS)}; has '
      f'{", ".join(map(str, names)) or "nothing":.300}'
    )
  further = table_files.first_column(where, [extra] if extra else [], names)
  return Columns(uid, path, prompt, further)


def _row(where: str, values: dict[str, Any], columns: Columns) -> Iterator[Row]:
  """Yields the row, or nothing if it has no prompt."""
  uid, path, prompt, extra = (values.get(name) for name in columns)
  if type(uid) is int:
    uid = str(uid)
  for name, value in zip(columns, (uid, path, prompt, extra), strict=True):
    if value is None:
      continue
    if not isinstance(value, str):
      raise InputError(f'{where}: {name} is {shown(value)}, not text')
    try:
      text_files.check(value)
      value.encode()
    except ValueError as error:
      raise InputError(f'{where}: {name} {value[:80]!r}: {error}') from None
  if not (uid or path):
    raise InputError(f'{where}: the row does not name an image')
  if prompt:
    yield Row(uid or '', path or '', prompt, extra)
