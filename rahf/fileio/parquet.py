"""Reads parquet files larger than memory, by row group and selected columns."""

import itertools
import os
import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rahf.errors import InputError
from rahf.fileio import lfs_pointer

# Raised by reading: errors of Arrow and of the file system.
ERRORS = (pa.ArrowException, OSError)
# Without a buffer size, whole encoded columns stay in memory while being decoded.
_BUFFER = 1 << 20
# Rows decoded at once.
_BATCH_ROWS = 32


def _is_bytes(kind: pa.DataType) -> bool:
  return (
    pa.types.is_binary(kind)
    or pa.types.is_large_binary(kind)
    or pa.types.is_binary_view(kind)
    or pa.types.is_fixed_size_binary(kind)
  )


def _is_file(kind: pa.DataType) -> bool:
  packed = pa.types.is_struct(kind) and kind.get_field_index('bytes') >= 0
  return packed or _is_bytes(kind)


def _is_text(kind: pa.DataType) -> bool:
  return (
    pa.types.is_string(kind)
    or pa.types.is_large_string(kind)
    or pa.types.is_string_view(kind)
  )


KINDS: dict[str, Callable[[pa.DataType], bool]] = {
  'text': _is_text,
  # Some programs store text as untyped bytes; `tables` decodes it.
  'text or bytes': lambda kind: _is_text(kind) or _is_bytes(kind),
  'number': lambda kind: pa.types.is_floating(kind) or pa.types.is_integer(kind),
  'list': pa.types.is_nested,
  'file': _is_file,
}


def _value_type(kind: pa.DataType) -> pa.DataType:
  """Returns the type of values, which a column may refer to by number."""
  return kind.value_type if pa.types.is_dictionary(kind) else kind


class Row(NamedTuple):
  """The position of a row; sorts in reading order."""

  file: pathlib.Path
  group: int
  number: int  # in its row group

  def __str__(self) -> str:
    return f'{self.file.name} row group {self.group} row {self.number}'


def find(folder: os.PathLike | str) -> list[pathlib.Path]:
  """Returns the parquet files below a folder, sorted."""
  return sorted(pathlib.Path(folder).rglob('*.parquet'))


def open_file(
  path: pathlib.Path, footer: pq.FileMetaData | None = None
) -> pq.ParquetFile:
  """Opens a file; reads its footer unless given.

  Raises:
    InputError: it is truncated, a Git LFS pointer, or not a parquet file.
  """
  try:
    return pq.ParquetFile(
      path,
      metadata=footer,
      pre_buffer=False,
      buffer_size=_BUFFER,
      page_checksum_verification=True,
    )
  except ERRORS as error:
    with path.open('rb') as file:
      lfs_pointer.check(path, file.read(len(lfs_pointer.START)))
    raise InputError(
      f'{path} is not a complete parquet file ({error}); download it again'
    ) from None


def columns(path: pathlib.Path) -> set[str]:
  """Returns the names of a file's columns.

  Raises:
    InputError: it is not a complete parquet file.
  """
  with open_file(path) as file:
    return set(file.schema_arrow.names)


def check(path: pathlib.Path, kinds: Mapping[str, str], remedy: str) -> None:
  """Checks that a file has columns of the given kinds, without reading rows.

  Args:
    kinds: column -> key of KINDS.
    remedy: what the user should do, for errors.

  Raises:
    InputError: it is not a complete parquet file, or a column is missing, duplicated,
      or of another kind.
  """
  with open_file(path) as file:
    fields = {field.name: field.type for field in file.schema_arrow}
    if missing := [name for name in kinds if name not in fields]:
      raise InputError(
        f'{path} has no column {", ".join(missing)}, only {", ".join(sorted(fields))}; '
        f'{remedy}'
      )
    require(path, file, kinds, remedy)
  for name, kind in kinds.items():
    found = _value_type(fields[name])
    # A column of nulls only has no type.
    if not (pa.types.is_null(found) or KINDS[kind](found)):
      raise InputError(f'{path}: column {name} is {found}, not {kind}; {remedy}')


def require(
  path: pathlib.Path, file: pq.ParquetFile, names: Collection[str], remedy: str
) -> None:
  """Raises InputError, with the remedy, if columns are missing or duplicated."""
  found = file.schema_arrow.names
  if missing := [name for name in names if name not in found]:
    raise InputError(f'{path}: no column {", ".join(missing)}; {remedy}')
  if twice := [name for name in names if found.count(name) > 1]:
    raise InputError(f'{path}: the column {twice[0]} occurs twice; keep only one')


def encoded_images(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
  """Returns images as bytes; extracts them from Hugging Face's structs."""
  if pa.types.is_struct(column.type) and column.type.get_field_index('bytes') >= 0:
    return pc.struct_field(column, 'bytes')
  return column


def cast(table: pa.Table, types: pa.Schema, path: pathlib.Path) -> pa.Table:
  """Casts a table's columns to the types of the same names.

  Raises:
    InputError: a column cannot be cast.
  """
  for name in table.column_names:
    index, field = table.column_names.index(name), types.field(name)
    try:
      table = table.set_column(index, field, table.column(name).cast(field.type))
    except ERRORS as error:
      raise InputError(
        f'{path}: column {name} is {table.column(name).type}, not {field.type} '
        f'({error}); move other files out of the folder'
      ) from None
  return table


def tables(
  path: pathlib.Path, names: Collection[str]
) -> Iterator[tuple[int, pa.Table]]:
  """Yields the number and content of each row group; only for small columns.

  Columns of bytes are decoded to text.

  Raises:
    InputError: the file is damaged; names the row group.
  """
  with open_file(path) as file:
    for group in range(file.num_row_groups):
      try:
        table = file.read_row_group(group, columns=list(names))
        yield group, table.cast(_decoded(table.schema))
      except ERRORS as error:
        raise damaged(path, group, error) from None


def _decoded(schema: pa.Schema) -> pa.Schema:
  return pa.schema(
    [f.with_type(pa.string()) if _is_bytes(_value_type(f.type)) else f for f in schema]
  )


def light_rows(
  path: pathlib.Path, names: Collection[str]
) -> Iterator[tuple[Row, dict[str, Any]]]:
  """Yields every row as Python values by column; only for small columns."""
  for group, table in tables(path, names):
    for number, values in enumerate(table.to_pylist()):
      yield Row(path, group, number), values


def read(
  rows: Collection[Row], names: Callable[[pathlib.Path], Collection[str]]
) -> Iterator[tuple[Row, dict[str, pa.Scalar]]]:
  """Yields the requested rows in the order of the files, as scalars by column.

  Args:
    names: returns the columns to read from a file.

  Raises:
    InputError: a row group is damaged.
  """
  groups = itertools.groupby(sorted(rows), key=lambda row: row[:2])
  for (path, group), wanted in groups:
    numbers = [row.number for row in wanted]
    for number, values in read_group(path, group, numbers, names(path)):
      yield Row(path, group, number), values


def read_group(
  path: pathlib.Path, group: int, numbers: Collection[int], names: Collection[str]
) -> Iterator[tuple[int, dict[str, pa.Scalar]]]:
  """Yields the requested rows of a row group in order, as scalars by column.

  Raises:
    InputError: the row group is damaged.
  """
  numbers, first, last = set(numbers), 0, max(numbers)
  with open_file(path) as file:
    # With threads, encoded columns would stay in memory next to the decoded ones.
    batches = file.iter_batches(
      _BATCH_ROWS, row_groups=[group], columns=list(names), use_threads=False
    )
    while first <= last:
      try:
        batch = next(batches)
      except ERRORS as error:
        raise damaged(path, group, error) from None
      for number in sorted(numbers.intersection(range(first, first + len(batch)))):
        yield number, {name: batch.column(name)[number - first] for name in names}
      first += len(batch)


def damaged(path: pathlib.Path, group: int, error: Exception) -> InputError:
  """Returns the error to raise for an unreadable row group."""
  reason = ' '.join(str(error).split())
  return InputError(
    f'{path}: row group {group} cannot be read ({reason}); download the file again'
  )
