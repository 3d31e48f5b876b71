"""Reads named columns of a table: CSV, TSV, JSON lines or parquet."""

import pathlib
from collections.abc import Collection, Iterator
from typing import Any

from rahf.errors import InputError
from rahf.fileio.table_files import (
  Delimited,
  check_pyarrow,
  first_column,
  json_lines,
  parse_object,
)

SUFFIXES = ('.csv', '.tsv', '.jsonl', '.parquet')


def rows(
  path: pathlib.Path, needed: Collection[str], optional: Collection[str] = ()
) -> Iterator[tuple[Any, list[Any]]]:
  """Yields a place for `where` and the values of the columns, None if missing.

  Args:
    path: of a CSV, TSV, JSONL or parquet file.
    needed: columns that must exist.
    optional: further columns.

  Raises:
    InputError: the file or a column is missing, or it cannot be read.
  """
  names = columns(path)
  wanted = [*needed, *optional]
  if path.suffix.lower() in ('.csv', '.tsv'):
    if names:  # Not an empty file, which has no rows.
      _require(f'{path}, line 1', names, needed)
    for line, values in Delimited(path).rows():
      yield line, [values.get(name) for name in wanted]
  elif path.suffix.lower() == '.jsonl':
    for line, text in json_lines(path):
      try:
        values = parse_object(text)
      except ValueError as error:
        raise InputError(f'{path}, line {line}: {error}') from None
      _require(f'{path}, line {line}', [*values], needed)
      yield line, [values.get(name) for name in wanted]
  else:
    from rahf.fileio import parquet

    _require(str(path), names, needed)
    present = [name for name in wanted if name in names]
    for row, values in parquet.light_rows(path, present):
      yield row, [values.get(name) for name in wanted]


def columns(path: pathlib.Path) -> list[str]:
  """Returns a table's columns; for JSON lines, those of the first line.

  Raises:
    InputError: it cannot be read, or is not a table.
  """
  if not path.exists():
    raise InputError(f'{path}: no such file or folder')
  if path.suffix.lower() not in SUFFIXES or not path.is_file():
    raise InputError(
      f'{path} is not a table; its name must end in one of {", ".join(SUFFIXES)}'
    )
  if path.suffix.lower() in ('.csv', '.tsv'):
    return Delimited(path).header()
  if path.suffix.lower() == '.jsonl':
    for line, text in json_lines(path):
      try:
        return [*parse_object(text)]
      except ValueError as error:
        raise InputError(f'{path}, line {line}: {error}') from None
    return []
  check_pyarrow()
  from rahf.fileio import parquet

  with parquet.open_file(path) as file:
    return file.schema_arrow.names


def _require(where: str, names: list[str], needed: Collection[str]) -> None:
  if missing := [name for name in needed if name not in names]:
    raise InputError(
      f'{where}: no column {", ".join(missing)}; needs {", ".join(needed)}, has '
      f'{", ".join(map(str, names)) or "nothing":.300}'
    )
  for name in needed:
    first_column(where, (name,), names)


def where(path: pathlib.Path, place: Any) -> str:
  """Returns where a row stands, for messages."""
  return f'{path}, line {place}' if isinstance(place, int) else f'{path}, {place}'
