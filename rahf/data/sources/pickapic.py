"""Reads the images of Pick-a-Pic v1: a parquet file, two images in each row.

An image that was compared several times occurs several times, with one uid.
"""

import functools
import pathlib
from collections.abc import Iterator, Sequence

from rahf.data.images.files import version
from rahf.data.sources.item import Item, Load, Wanted, digest
from rahf.data.sources.tables import Columns, to_item
from rahf.fileio import parquet, table_files

SIDES = (0, 1)
COLUMNS = tuple(
  Columns(image=f'jpg_{side}', prompt='caption', uid=f'image_{side}_uid', extra=None)
  for side in SIDES
)


def is_pickapic(names: Sequence[str]) -> bool:
  """Returns whether a parquet file has these columns."""
  return all(set(columns.names()) <= {*names} for columns in COLUMNS)


class PickAPic:
  """One of its parquet files; position 2 k is the first image of row k."""

  def __init__(self, path: pathlib.Path):
    """Opens the file.

    Raises:
      InputError: pyarrow is not installed.
    """
    table_files.check_pyarrow()
    self._path = path

  def scan(self) -> tuple[int, str]:
    """See `item.Reader`."""
    return len(SIDES) * sum(self._groups()), digest([version(self._path)])

  def read(self, wanted: Wanted) -> Iterator[tuple[int, Load]]:
    """See `item.Reader`."""
    start = 0
    for group, rows in enumerate(self._groups()):
      chosen = {}
      for row in range(rows):
        sides = [side for side in SIDES if wanted(start + len(SIDES) * row + side)]
        if sides:
          chosen[row] = sides
      if chosen:
        names = {
          name
          for sides in chosen.values()
          for side in sides
          for name in COLUMNS[side].names()
        }
        found = parquet.read_group(self._path, group, [*chosen], sorted(names))
        for row, scalars in found:
          for side in chosen[row]:
            columns = COLUMNS[side]
            values = {name: scalars[name].as_py() for name in columns.names()}
            load = functools.partial(to_item, values, columns, self._path.parent)
            yield start + len(SIDES) * row + side, load
      start += len(SIDES) * rows

  def read_texts(self) -> Iterator[tuple[int, Item]]:
    """See `item.TextReader`."""
    names = ['caption', *(columns.uid for columns in COLUMNS)]
    for number, (_, row) in enumerate(parquet.light_rows(self._path, names)):
      for side, columns in enumerate(COLUMNS):
        yield len(SIDES) * number + side, Item(row[columns.uid], row['caption'], None)

  def _groups(self) -> list[int]:
    """Returns the number of rows in each row group."""
    with parquet.open_file(self._path) as file:
      found = file.metadata
      return [found.row_group(i).num_rows for i in range(found.num_row_groups)]
