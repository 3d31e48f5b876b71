"""Tables with an image and a prompt in each row: CSV, TSV, JSON lines, parquet."""

import csv
import functools
import os
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from rahf import strict_json
from rahf.data.datasets.files import version
from rahf.data.datasets.image_folder import check_pyarrow
from rahf.data.sources.item import Item, Load, Wanted, digest
from rahf.errors import InputError

IMAGES = ('image', 'path', 'file_name', 'filename')
PROMPTS = ('prompt', 'caption')
UIDS = ('uid', 'id')


class Columns(NamedTuple):
  """The names of a table's columns; None where there is none."""

  image: str
  prompt: str
  uid: str | None

  def names(self) -> list[str]:
    return [name for name in self if name]


def find_columns(where: str, names: Collection[str]) -> Columns:
  """Returns the first of each kind that is there.

  Raises:
    InputError: there is no image or no prompt.
  """
  image, prompt, uid = (
    next((name for name in known if name in names), None)
    for known in (IMAGES, PROMPTS, UIDS)
  )
  if image is None or prompt is None:
    raise InputError(
      f'{where} needs a column {" or ".join(PROMPTS)}, and one with the image, '
      f'{" or ".join(IMAGES)}; it has {", ".join(map(str, names)) or "none":.300}'
    )
  return Columns(image, prompt, uid)


def to_item(values: Mapping[str, Any], columns: Columns, folder: pathlib.Path) -> Item:
  """Returns one row; a path in it is relative to the folder of its table."""
  image, uid = values.get(columns.image), values.get(columns.uid)
  if isinstance(image, dict):  # As Hugging Face's data sets keep images.
    image = image.get('bytes') or image.get('path')
  name = str(uid) if uid is not None else image if isinstance(image, str) else ''
  prompt = values.get(columns.prompt)
  if not isinstance(image, str | bytes) or not image:
    return Item(name, prompt, None, f'its {columns.image} is {image!r:.80}')
  if isinstance(image, str) and '://' not in image:
    image = folder / os.path.expanduser(image)
  return Item(name, prompt, image)


class Delimited:
  """A CSV or TSV file with a header."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._delimiter = '\t' if path.suffix.lower() == '.tsv' else ','

  def scan(self) -> tuple[int, str]:
    """See `item.Reader`."""
    try:
      return sum(1 for _ in self._rows()), version(self._path)
    except (csv.Error, UnicodeDecodeError) as error:
      raise InputError(
        f'{self._path} cannot be read ({error}); save it as UTF-8'
      ) from None

  def read(self, wanted: Wanted) -> Iterator[tuple[int, Load]]:
    """See `item.Reader`."""
    for number, (row, columns) in enumerate(self._rows()):
      if wanted(number):
        folder = self._path.parent
        yield number, functools.partial(to_item, row, columns, folder)

  def _rows(self) -> Iterator[tuple[dict[str, str], Columns]]:
    # Spreadsheets put a byte order mark in front of UTF-8.
    with self._path.open(encoding='utf-8-sig', newline='') as file:
      rows = csv.DictReader(file, delimiter=self._delimiter)
      columns = find_columns(str(self._path), rows.fieldnames or ())
      for row in rows:
        yield row, columns


class JsonLines:
  """A JSON object a line; empty lines are passed over."""

  def __init__(self, path: pathlib.Path):
    self._path = path

  def scan(self) -> tuple[int, str]:
    """See `item.Reader`."""
    count = 0
    for _, line in self._lines():
      if count == 0:
        values = _parse(line)
        names = values.keys() if isinstance(values, dict) else ()
        find_columns(f'{self._path}, its first line,', names)
      count += 1
    return count, version(self._path)

  def read(self, wanted: Wanted) -> Iterator[tuple[int, Load]]:
    """See `item.Reader`."""
    for number, (place, line) in enumerate(self._lines()):
      if wanted(number):
        yield number, functools.partial(self._load, place, line)

  def _lines(self) -> Iterator[tuple[int, bytes]]:
    with self._path.open('rb') as file:
      for place, line in enumerate(file, 1):
        if line.strip():
          yield place, line

  def _load(self, place: int, line: bytes) -> Item:
    where, values = f'line {place}', _parse(line)
    if not isinstance(values, dict):
      return Item('', None, None, f'{where} is no JSON object')
    try:
      columns = find_columns(where, values)
    except InputError as error:
      return Item('', None, None, str(error))
    return to_item(values, columns, self._path.parent)


class Parquet:
  """A parquet file; its images are bytes, paths, or Hugging Face's pairs of both."""

  def __init__(self, path: pathlib.Path):
    """Opens the file.

    Raises:
      InputError: pyarrow is not installed.
    """
    check_pyarrow()
    self._path = path

  def scan(self) -> tuple[int, str]:
    """See `item.Reader`."""
    _, groups = self._describe()
    return sum(groups), digest([version(self._path)])

  def read(self, wanted: Wanted) -> Iterator[tuple[int, Load]]:
    """See `item.Reader`."""
    from rahf.data import parquet

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
    from rahf.data import parquet

    with parquet.open_file(self._path) as file:
      names, found = file.schema_arrow.names, file.metadata
      groups = [found.row_group(i).num_rows for i in range(found.num_row_groups)]
    return find_columns(str(self._path), names), groups


def _parse(line: bytes) -> Any:
  try:
    return strict_json.parse(line)
  except ValueError:
    return None
