"""Rows of CSV, TSV and JSON lines files, and the columns that are looked for in them.

CSV is read strictly: a value with a comma, a quote or a line end is in quotes, and a
quote in it is doubled. In TSV a quote is a character like any other, and a value has
neither tabs nor line ends. Two things are written by programs that quote TSV as CSV,
and are read so: a file whose header is in quotes, and a value that is in quotes and has
its own quotes doubled.
"""

import csv
import itertools
import json
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from rahf.errors import InputError
from rahf.fileio import strict_json, text_files

# The names that a column may have; the first that is there is taken.
IMAGES = ('image', 'path', 'file_name', 'filename')
PROMPTS = ('prompt', 'caption')
UIDS = ('uid', 'id')

_COMPLETE_FIELD = {
  delimiter: re.compile(
    rf'(?:"(?:[^"]|"")*"(?=[{delimiter}\r\n])|(?!")[^{delimiter}\r\n]*){delimiter}?'
  )
  for delimiter in ',\t'
}


def first_column(where: str, known: Sequence[str], names: Sequence[str]) -> str | None:
  """Returns the first known name that is among the names of the columns, or None.

  Raises:
    InputError: that column is there twice.
  """
  found = next((name for name in known if name in names), None)
  if found is not None and names.count(found) > 1:
    raise InputError(f'{where}: the column {found} is there twice; leave one')
  return found


class Delimited:
  """A CSV or TSV file; its first row is the header."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._delimiter = '\t' if path.suffix.lower() == '.tsv' else ','

  def header(self) -> list[str]:
    """Returns the names of the columns, [] of an empty file.

    Raises:
      InputError: it cannot be read.
    """
    return next(self._records(), (1, []))[1]

  def rows(self) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the line in which each row begins, and its values by column.

    Raises:
      InputError: a row has more or fewer values than the header, or a quote is never
        closed; names the line.
    """
    records = self._records()
    _, header = next(records, (1, []))
    for line, values in records:
      if len(values) != len(header):
        raise self._uneven(line, len(values), len(header))
      yield line, dict(zip(header, values, strict=True))

  def _uneven(self, line: int, found: int, expected: int) -> InputError:
    if self._delimiter == '\t':
      hint = 'in TSV a value has neither tabs nor line ends; CSV has them in quotes'
    elif found > expected:
      hint = 'a value with a comma needs quotes: "a red circle, on blue"'
    else:
      hint = 'write a comma for each value that is left empty'
    return InputError(
      f'{self._path}, line {line}: {found} value{"s"[: found != 1]}, but {expected} '
      f'column{"s"[: expected != 1]} in the header; {hint}'
    )

  def _records(self) -> Iterator[tuple[int, list[str]]]:
    """Yields every row that is not empty, the header too."""
    lines = self._lines()
    first = next(lines, None)
    if first is None:
      return
    quoted = self._delimiter == ',' or all(map(_is_quoted, _split(first)))
    kept: list[str] = []  # The lines of the row that is read, for errors.
    reader = csv.reader(
      _keeping(itertools.chain([first], lines), kept),
      delimiter=self._delimiter,
      quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
      strict=True,
    )
    while True:
      line = reader.line_num + 1
      kept.clear()
      try:
        values = next(reader)
      except StopIteration:
        return
      except csv.Error as error:
        raise self._damaged(line, ''.join(kept), error) from None
      if values:
        yield line, values if quoted else [*map(_unquoted, values)]

  def _lines(self) -> Iterator[str]:
    with self._path.open('rb') as file:
      lines = text_files.lines(file, self._path, newline='')
      for number, line in enumerate(lines, 1):
        try:
          text_files.check(line)
        except ValueError as error:
          raise InputError(
            f'{self._path}: cannot be read (line {number}: {error})'
          ) from None
        yield line

  def _damaged(self, line: int, row: str, error: csv.Error) -> InputError:
    """Returns the error to raise for a row that begins in a line."""
    end, field = 0, _COMPLETE_FIELD[self._delimiter]
    while (found := field.match(row, end)) and found.end() > end:
      end = found.end()
    if not row.startswith('"', end):
      return InputError(f'{self._path}, line {line}: it cannot be read ({error})')
    line += len(re.findall('\r\n|\r|\n', row[:end]))
    opened = re.match('[^\r\n]*', row[end:])[0]
    return InputError(
      f'{self._path}, line {line}: the quote that opens in {opened[:60]!r} has no end; '
      'close it before the comma or line end, and double the quotes in a value: '
      '"a ""red"" circle"'
    )


def _keeping(lines: Iterator[str], kept: list[str]) -> Iterator[str]:
  for line in lines:
    kept.append(line)
    yield line


def _split(line: str) -> list[str]:
  return line.rstrip('\r\n').split('\t')


def _is_quoted(value: str) -> bool:
  return len(value) > 1 and value[0] == value[-1] == '"'


def _unquoted(value: str) -> str:
  """Returns a value of a TSV file, without the quotes of a program that adds them."""
  inner = value[1:-1]
  doubled = '""' in inner and '"' not in inner.replace('""', '')
  return inner.replace('""', '"') if _is_quoted(value) and doubled else value


def json_lines(
  path: os.PathLike, file: BinaryIO | None = None
) -> Iterator[tuple[int, str]]:
  """Yields number and text of each line that is not empty; see `parse_object`.

  Args:
    file: what is read, if it is not the local file at that path.

  Raises:
    InputError: the file is a Git LFS pointer.
  """
  with file or open(path, 'rb') as stream:
    for number, line in enumerate(text_files.lines(stream, path, newline='\n'), 1):
      if line.strip():
        yield number, line


def parse_object(line: str) -> dict[str, Any]:
  """Returns the object in a line; NaN, which JSON lacks, becomes NaN.

  Raises:
    ValueError: it is not one; says why.
  """
  text_files.check(line)
  try:
    values = strict_json.parse(line, constants=True)
  except json.JSONDecodeError as error:
    # It counts lines of its own.
    reason = f'{error.msg} at character {error.pos + 1}'
    raise ValueError(f'not JSON ({reason})') from None
  if not isinstance(values, dict):
    raise ValueError('not a JSON object')
  return values


def shown(value: Any) -> str:
  """Returns a value for an error, NaN as JSON and pandas write it."""
  return 'NaN' if isinstance(value, float) and value != value else f'{value!r:.80}'


def check_pyarrow() -> None:
  """Raises InputError if parquet files can be neither read nor written."""
  try:
    import pyarrow.parquet  # noqa: F401
  except ModuleNotFoundError:
    raise InputError(
      'parquet needs pyarrow, which is not installed: pip install "rahf[parquet]"'
    ) from None
