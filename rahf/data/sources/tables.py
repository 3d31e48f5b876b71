"""Reads tables with an image and a prompt per row: CSV, TSV, JSON lines, parquet."""

import functools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rahf.data.images.files import version
from rahf.data.sources.item import Item, Load, Wanted, digest
from rahf.errors import InputError
from rahf.fileio import table_files, text_files
from rahf.fileio.table_files import IMAGES, PROMPTS, UIDS, first_column, shown


class Columns(NamedTuple):
  """The names of a table's columns; None for a missing one."""

  image: str
  prompt: str
  uid: str | None
  extra: str | None

  def names(self) -> list[str]:
    return list(dict.fromkeys(filter(None, self)))


def find_columns(where: str, names: Sequence[str], extra: str = '') -> Columns:
  """Returns the first column found of each kind.

  Args:
    extra: a further column, which may be missing.

  Raises:
    InputError: the image or prompt column is missing, or one is duplicated.
  """
  image, prompt, uid = (
    first_column(where, known, names) for known in (IMAGES, PROMPTS, UIDS)
  )
  further = first_column(where, [extra] if extra else [], names)
  if image is None or prompt is None:
    raise InputError(
      f'{where} needs a prompt column, {" or ".join(PROMPTS)}, and an image column, '
      f'{" or ".join(IMAGES)}; it has {", ".join(map(str, names)) or "none":.300}'
    )
  return Columns(image, prompt, uid, further)


def to_item(values: Mapping[str, Any], columns: Columns, folder: pathlib.Path) -> Item:
  """Returns one row; its path is relative to the folder of the table."""
  image, prompt, uid, extra = (values.get(name) for name in columns)
  if isinstance(image, dict):  # Hugging Face's format for images.
    image = image.get('bytes') or image.get('path')
  try:
    name = image if isinstance(image, str) else ''
    name = _text(uid, columns.uid) or name
    prompt = _text(prompt, columns.prompt)
    extra = _text(extra, columns.extra)
  except ValueError as error:
    return Item(name, None, None, str(error))
  if not isinstance(image, str | bytes) or not image:
    error = f'its {columns.image} is {shown(image)}'
    return Item(name, prompt, None, error, extra)
  if isinstance(image, str) and '://' not in image:
    image = folder / os.path.expanduser(image)
  return Item(name, prompt, image, extra=extra)


def find_prompt(values: Mapping[str, Any]) -> Any:
  """Returns the prompt in a JSON object, None if there is none.

  Raises:
    ValueError: it is NaN.
  """
  name = next((name for name in PROMPTS if name in values), None)
  return _text(values.get(name), name)


class Delimited:
  """A CSV or TSV file with a header."""

  def __init__(self, path: pathlib.Path, extra: str = ''):
    self._path, self._file = path, table_files.Delimited(path)
    self._extra = extra

  def scan(self) -> tuple[int, str]:
    """See `item.Reader`."""
    self._columns()
    return sum(1 for _ in self._file.rows()), version(self._path)

  def read(self, wanted: Wanted) -> Iterator[tuple[int, Load]]:
    """See `item.Reader`."""
    columns, folder = self._columns(), self._path.parent
    for number, (_, row) in enumerate(self._file.rows()):
      if wanted(number):
        yield number, functools.partial(to_item, row, columns, folder)

  def _columns(self) -> Columns:
    return find_columns(str(self._path), self._file.header(), self._extra)


class JsonLines:
  """A JSON object per line; empty lines are skipped."""

  def __init__(self, path: pathlib.Path, extra: str = ''):
    self._path, self._extra = path, extra

  def scan(self) -> tuple[int, str]:
    """See `item.Reader`."""
    count = 0
    for line_number, line in table_files.json_lines(self._path):
      if count == 0:
        where = f'{self._path}, line {line_number}'
        try:
          names = [*table_files.parse_object(line)]
        except ValueError as error:
          raise InputError(f'{where}: {error}') from None
        find_columns(where, names)
      count += 1
    return count, version(self._path)

  def read(self, wanted: Wanted) -> Iterator[tuple[int, Load]]:
    """See `item.Reader`."""
    lines = table_files.json_lines(self._path)
    for number, (line_number, line) in enumerate(lines):
      if wanted(number):
        yield number, functools.partial(self._load, line_number, line)

  def _load(self, line_number: int, line: str) -> Item:
    where = f'line {line_number}'
    try:
      values = table_files.parse_object(line)
      columns = find_columns(where, [*values], self._extra)
    except InputError as error:
      return Item('', None, None, str(error))
    except ValueError as error:
      return Item('', None, None, f'{where}: {error}')
    return to_item(values, columns, self._path.parent)


class Parquet:
  """A parquet file; images are bytes, paths, or Hugging Face's structs of both."""

  def __init__(self, path: pathlib.Path, extra: str = ''):
    """Opens the file.

    Raises:
      InputError: pyarrow is not installed.
    """
    table_files.check_pyarrow()
    self._path, self._extra = path, extra

  def scan(self) -> tuple[int, str]:
    """See `item.Reader`."""
    _, groups = self._describe()
    return sum(groups), digest([version(self._path)])

  def read(self, wanted: Wanted) -> Iterator[tuple[int, Load]]:
    """See `item.Reader`."""
    from rahf.fileio import parquet

    columns, groups = self._describe()
    start = 0
    for group, rows in enumerate(groups):
      numbers = [number for number in range(rows) if wanted(start + number)]
      if numbers:
        found = parquet.read_group(self._path, group, numbers, columns.names())
        for number, scalars in found:
          values = {name: scalar.as_py() for name, scalar in scalars.items()}
          folder = self._path.parent
          yield start + number, functools.partial(to_item, values, columns, folder)
      start += rows

  def _describe(self) -> tuple[Columns, list[int]]:
    """Returns the columns, and the number of rows in each row group."""
    from rahf.fileio import parquet

    with parquet.open_file(self._path) as file:
      names, found = file.schema_arrow.names, file.metadata
      groups = [found.row_group(i).num_rows for i in range(found.num_row_groups)]
    return find_columns(str(self._path), names, self._extra), groups


def _text(value: Any, column: str | None) -> Any:
  """Converts bytes, and numbers used as uids, to text; returns others unchanged.

  Raises:
    ValueError: the value is NaN or not UTF-8.
  """
  try:
    if isinstance(value, bytes):
      return text_files.decode(value)
    if isinstance(value, str):
      if '\0' in value:
        text_files.check(value)
      return value
  except ValueError as error:
    raise ValueError(f'its {column} cannot be read: {error}') from None
  if shown(value) == 'NaN':
    raise ValueError(f'its {column} is NaN')
  return str(value) if column in UIDS and value is not None else value
