"""Tables with an image and a prompt in each row: CSV, TSV, JSON lines, parquet."""

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
  """The names of a table's columns; None where there is none."""

  image: str
  prompt: str
  uid: str | None

  def names(self) -> list[str]:
    return [name for name in self if name]


def find_columns(where: str, names: Sequence[str]) -> Columns:
  """Returns the first of each kind that is there.

  Raises:
    InputError: there is no image or no prompt, or one of them twice.
  """
  image, prompt, uid = (
    first_column(where, known, names) for known in (IMAGES, PROMPTS, UIDS)
  )
  if image is None or prompt is None:
    raise InputError(
      f'{where} needs a column {" or ".join(PROMPTS)}, and one with the image, '
      f'{" or ".join(IMAGES)}; it has {", ".join(map(str, names)) or "none":.300}'
    )
  return Columns(image, prompt, uid)


def to_item(values: Mapping[str, Any], columns: Columns, folder: pathlib.Path) -> Item:
  """Returns one row; a path in it is relative to the folder of its table."""
  image, uid, prompt = (
    values.get(name) for name in (columns.image, columns.uid, columns.prompt)
  )
  if isinstance(image, dict):  # As Hugging Face's data sets keep images.
    image = image.get('bytes') or image.get('path')
  try:
    name = image if isinstance(image, str) else ''
    name = _text(uid, columns.uid) or name
    prompt = _text(prompt, columns.prompt)
  except ValueError as error:
    return Item(name, None, None, str(error))
  if not isinstance(image, str | bytes) or not image:
    return Item(name, prompt, None, f'its {columns.image} is {shown(image)}')
  if isinstance(image, str) and '://' not in image:
    image = folder / os.path.expanduser(image)
  return Item(name, prompt, image)


def find_prompt(values: Mapping[str, Any]) -> Any:
  """Returns the prompt in a JSON object, None if there is none.

  Raises:
    ValueError: it is NaN.
  """
  name = next((name for name in PROMPTS if name in values), None)
  return _text(values.get(name), name)


class Delimited:
  """A CSV or TSV file with a header."""

  def __init__(self, path: pathlib.Path):
    self._path, self._file = path, table_files.Delimited(path)

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
    return find_columns(str(self._path), self._file.header())


class JsonLines:
  """A JSON object a line; empty lines are passed over."""

  def __init__(self, path: pathlib.Path):
    self._path = path

  def scan(self) -> tuple[int, str]:
    """See `item.Reader`."""
    count = 0
    for place, line in table_files.json_lines(self._path):
      if count == 0:
        where = f'{self._path}, line {place}'
        try:
          names = [*table_files.parse_object(line)]
        except ValueError as error:
          raise InputError(f'{where}: {error}') from None
        find_columns(where, names)
      count += 1
    return count, version(self._path)

  def read(self, wanted: Wanted) -> Iterator[tuple[int, Load]]:
    """See `item.Reader`."""
    for number, (place, line) in enumerate(table_files.json_lines(self._path)):
      if wanted(number):
        yield number, functools.partial(self._load, place, line)

  def _load(self, place: int, line: str) -> Item:
    where = f'line {place}'
    try:
      values = table_files.parse_object(line)
      columns = find_columns(where, [*values])
    except InputError as error:
      return Item('', None, None, str(error))
    except ValueError as error:
      return Item('', None, None, f'{where}: {error}')
    return to_item(values, columns, self._path.parent)


class Parquet:
  """A parquet file; its images are bytes, paths, or Hugging Face's pairs of both."""

  def __init__(self, path: pathlib.Path):
    """Opens the file.

    Raises:
      InputError: pyarrow is not installed.
    """
    table_files.check_pyarrow()
    self._path = path

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
    return find_columns(str(self._path), names), groups


def _text(value: Any, column: str | None) -> Any:
  """Returns a value as text, if it is text or stored as such; uids may be numbers.

  Raises:
    ValueError: it is NaN, or not UTF-8; says in which column.
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
