"""Parquet files of a known data set: what is wrong with one is said with a remedy."""

import pathlib
from collections.abc import Collection

import pyarrow as pa
import pyarrow.parquet as pq

from rahf.errors import InputError

# What reading raises: of Arrow and of the file system.
ERRORS = (pa.ArrowException, OSError)
# A column is otherwise held whole beside what is decoded from it.
_BUFFER = 1 << 20


def open_file(
  path: pathlib.Path, footer: pq.FileMetaData | None = None
) -> pq.ParquetFile:
  """Opens a file; reads its footer unless it is given.

  Raises:
    InputError: it is cut, or no parquet file.
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
    raise InputError(
      f'{path} is no complete parquet file ({error}); download it again'
    ) from None


def require(
  path: pathlib.Path, file: pq.ParquetFile, names: Collection[str], remedy: str
) -> None:
  """Raises InputError, with the remedy, if columns are missing."""
  missing = [name for name in names if name not in file.schema_arrow.names]
  if missing:
    raise InputError(f'{path}: no column {", ".join(missing)}; {remedy}')


def cast(table: pa.Table, types: pa.Schema, path: pathlib.Path) -> pa.Table:
  """Returns the table with the types of the columns of these names.

  Raises:
    InputError: a column holds something else.
  """
  for name in table.column_names:
    index, field = table.column_names.index(name), types.field(name)
    try:
      table = table.set_column(index, field, table.column(name).cast(field.type))
    except ERRORS as error:
      raise InputError(
        f'{path}: column {name} is {table.column(name).type}, not {field.type} '
        f'({error}); take other files out of the folder'
      ) from None
  return table


def damaged(path: pathlib.Path, group: int, error: Exception) -> InputError:
  """Returns the error to raise for a row group that cannot be read."""
  reason = ' '.join(str(error).split())
  return InputError(
    f'{path}: row group {group} cannot be read ({reason}); download the file again'
  )
