"""Reads CSV, TSV and JSON lines files, and finds their image, prompt and uid columns.

CSV is parsed strictly: values with a comma, a quote or a line end must be in quotes,
with inner quotes doubled. In TSV, quotes are ordinary characters, and values contain
neither tabs nor line ends. Two exceptions are for programs that quote TSV like CSV: a
file whose header is in quotes, and a value that is in quotes and has doubled inner
quotes.
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

# The names that a column may have, in order of preference.
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
  """Returns the first known name that is a column, or None.

  Raises:
    InputError: that column occurs twice.
  """
  found = next((name for name in known if name in names), None)
  if found is not None and names.count(found) > 1:
    raise InputError(f'{where}: the column {found} occurs twice; keep only one')
  return found


class Delimited:
  """A CSV or TSV file; its first row is the header."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._delimiter = '\t' if path.suffix.lower() == '.tsv' else ','

  def header(self) -> list[str]:
    """Returns the names of the columns, [] for an empty file.

    Raises:
      InputError: it cannot be read.
    """
    return next(self._records(), (1, []))[1]

  def rows(self) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the number of each row's first line, and its values by column.

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
      hint = 'TSV values cannot contain tabs or line ends; use CSV with quotes for them'
    elif found > expected:
      hint = 'a value with a comma needs quotes: "a red circle, on blue"'
    else:
      hint = 'write a comma for each empty value'
    return InputError(
      f'{self._path}, line {line}: {found} value{"s"[: found != 1]}, but {expected} '
      f'column{"s"[: expected != 1]} in the header; {hint}'
    )

  def _records(self) -> Iterator[tuple[int, list[str]]]:
    """Yields every non-empty row, including the header."""
    lines = self._lines()
    first = next(lines, None)
    if first is None:
      return
    quoted = self._delimiter == ',' or all(map(_is_quoted, _split(first)))
    row_lines: list[str] = []  # The lines of the current row, for errors.
    reader = csv.reader(
      _recording(itertools.chain([first], lines), row_lines),
      delimiter=self._delimiter,
      quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
      strict=True,
    )
    while True:
      line = reader.line_num + 1
      row_lines.clear()
      try:
        values = next(reader)
      except StopIteration:
        return
      except csv.Error as error:
        raise self._damaged(line, ''.join(row_lines), error) from None
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
            f'{self._path} cannot be read (line {number}: {error})'
          ) from None
        yield line

  def _damaged(self, line: int, row: str, error: csv.Error) -> InputError:
    """Returns the error to raise for a row that starts in the given line."""
    end, field = 0, _COMPLETE_FIELD[self._delimiter]
    while (found := field.match(row, end)) and found.end() > end:
      end = found.end()
    if not row.startswith('"', end):
      return InputError(f'{self._path}, line {line}: it cannot be read ({error})')
    line += len(re.findall('\r\n|\r|\n', row[:end]))
    opened = re.match('[^\r\n]*', row[end:])[0]
    return InputError(
      f'{self._path}, line {line}: the quote that opens in {opened[:60]!r} is never '
      'closed; close it before the comma or line end, and double the quotes inside a '
      'value: "a ""red"" circle"'
    )


def _recording(lines: Iterator[str], record: list[str]) -> Iterator[str]:
  for line in lines:
    record.append(line)
    yield line


def _split(line: str) -> list[str]:
  return line.rstrip('\r\n').split('\t')


def _is_quoted(value: str) -> bool:
  return len(value) > 1 and value[0] == value[-1] == '"'


def _unquoted(value: str) -> str:
  """Removes the quotes from a TSV value that was quoted like CSV."""
  inner = value[1:-1]
  doubled = '""' in inner and '"' not in inner.replace('""', '')
  return inner.replace('""', '"') if _is_quoted(value) and doubled else value


def json_lines(
  path: os.PathLike, file: BinaryIO | None = None
) -> Iterator[tuple[int, str]]:
  """Yields the number and text of each non-empty line, for `parse_object`.

  Args:
    file: the stream to read; None opens the local file at that path.

  Raises:
    InputError: the file is a Git LFS pointer.
  """
  with file or open(path, 'rb') as stream:
    for number, line in enumerate(text_files.lines(stream, path, newline='\n'), 1):
      if line.strip():
        yield number, line


def parse_object(line: str) -> dict[str, Any]:
  """Parses a line as a JSON object; NaN, though not valid JSON, is accepted.

  Raises:
    ValueError: it is not a JSON object.
  """
  text_files.check(line)
  try:
    values = strict_json.parse(line, constants=True)
  except json.JSONDecodeError as error:
    # The error's own message has a misleading line number.
    reason = f'{error.msg} at character {error.pos + 1}'
    raise ValueError(f'not JSON ({reason})') from None
  if not isinstance(values, dict):
    raise ValueError('not a JSON object')
  return values


def shown(value: Any) -> str:
  """Formats a value for an error message, NaN as in JSON and pandas."""
  return 'NaN' if isinstance(value, float) and value != value else f'{value!r:.80}'


def check_pyarrow() -> None:
  """Raises InputError if pyarrow, which parquet needs, is not installed."""
  try:
    import pyarrow.parquet  # noqa: F401
  except ModuleNotFoundError:
    raise InputError(
      'parquet needs pyarrow, which is not installed: pip install "rahf[parquet]"'
    ) from None
