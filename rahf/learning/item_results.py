"""A folder with one result for each item, which a stopped command continues.

images/0.png       the resulting image of an item, by its number
panels/0.png       pictures that explain it, side by side
records/0.json     its row of the table; an item with a record is done
TABLE.csv          all rows, once all items are done
contact_sheet.png  the panels of the first items
"""

import csv
import io
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from tqdm import tqdm

from rahf.data.images import codec
from rahf.drawing import contact_sheet
from rahf.fileio import atomic_write
from rahf.metrics import bootstrap

SHEET = 'contact_sheet.png'
# Items on the contact sheet.
SHOWN = 100

Row = dict[str, Any]


class Result(NamedTuple):
  """What became of an item.

  Attributes:
    row: of the table; `file_name` is added. Keys that are no columns are kept in the
      record alone.
    image: the resulting image; None if there is none, because of a mistake in the item.
    panel: pictures of one size that explain it.
  """

  row: Row
  image: UInt8[np.ndarray, 'H W 3'] | None = None
  panel: Sequence[UInt8[np.ndarray, 'h w 3']] = ()


class Table(NamedTuple):
  """How results are shown.

  Attributes:
    name: of the file.
    columns: of the table; the first is `file_name`.
    captions: of the pictures of a panel, and the columns whose values stand below them.
    title: the column above a panel.
  """

  name: str
  columns: Sequence[str]
  captions: Mapping[str, str]
  title: str = 'prompt'


def complete(
  folder: pathlib.Path,
  count: int,
  work: Callable[[set[int]], Iterator[tuple[int, Result]]],
  table: Table,
  verb: str,
) -> list[Row]:
  """Works on the items that are not done yet; returns the rows of all.

  Args:
    folder: exists, and belongs to this process.
    count: number of items.
    work: yields the numbers of the given items and their results, in any order.
    verb: for the progress bar.
  """
  for name in ('images', 'panels', 'records'):
    (folder / name).mkdir(exist_ok=True)
  missing = {i for i in range(count) if read_row(folder, i) is None}
  bar = tqdm(
    total=count,
    initial=count - len(missing),
    desc=verb,
    unit='image',
    mininterval=1,
    disable=None,
  )
  with bar:
    for number, result in work(missing):
      _write(folder, number, result)
      bar.update()
  rows = [read_row(folder, number) for number in range(count)]
  _write_sheets(folder, rows, table)
  text = io.StringIO()
  writer = csv.DictWriter(
    text, table.columns, lineterminator='\n', extrasaction='ignore'
  )
  writer.writeheader()
  writer.writerows(rows)
  atomic_write.write(folder / table.name, text.getvalue().encode('utf-8', 'replace'))
  return rows


def read_row(folder: pathlib.Path, number: int) -> Row | None:
  """Returns the row of an item; None if it is not done, or a file of it is lost."""
  try:
    row = json.loads(_record(folder, number).read_text())
  except (FileNotFoundError, ValueError):
    return None
  if name := row['file_name']:
    panel = folder / 'panels' / pathlib.PurePosixPath(name).name
    if not ((folder / name).exists() and panel.exists()):
      return None
  return row


def forget(folder: pathlib.Path, number: int) -> None:
  """Lets an item be done again."""
  _record(folder, number).unlink(missing_ok=True)


def _record(folder: pathlib.Path, number: int) -> pathlib.Path:
  return folder / 'records' / f'{number}.json'


def _write(folder: pathlib.Path, number: int, result: Result) -> None:
  row = {'file_name': '', **result.row}
  if result.image is not None:
    row['file_name'] = f'images/{number}.png'
    atomic_write.write(folder / row['file_name'], codec.encode_png(result.image))
    panel = codec.encode_png(np.concatenate(result.panel, 1))
    atomic_write.write(folder / 'panels' / f'{number}.png', panel)
  # Last: an item with a record is done.
  atomic_write.write(_record(folder, number), json.dumps(row))


def _write_sheets(folder: pathlib.Path, rows: Sequence[Row], table: Table) -> None:
  shown = [row for row in rows if row['file_name']][:SHOWN]
  tiles = (_sheet_row(folder, row, table) for row in shown)
  for number, sheet in enumerate(contact_sheet.sheets(tiles), 1):
    name = SHEET if number == 1 else SHEET.replace('.png', f'-{number}.png')
    file = io.BytesIO()
    sheet.save(file, 'PNG')
    atomic_write.write(folder / name, file.getvalue())


def _sheet_row(folder: pathlib.Path, row: Row, table: Table) -> contact_sheet.Row:
  panel = Image.open(folder / 'panels' / pathlib.PurePosixPath(row['file_name']).name)
  width = panel.width // len(table.captions)
  tiles = []
  for number, (caption, column) in enumerate(table.captions.items()):
    picture = panel.crop((number * width, 0, (number + 1) * width, panel.height))
    picture.thumbnail((contact_sheet.SIDE, contact_sheet.SIDE))
    file = io.BytesIO()
    picture.save(file, 'PNG')
    note = f'{row[column]:.4g}' if column else ''
    tiles.append(contact_sheet.Tile(file.getvalue(), caption, note))
  return contact_sheet.Row(row[table.title], tiles)


def gain_line(rows: Sequence[Row], by: str) -> str:
  """Returns a sentence on the mean of the columns `after` minus `before`."""
  gains = np.array([r['after'] - r['before'] for r in rows if r['before'] is not None])
  if not gains.size:
    return 'No image could be scored.'
  mean = bootstrap.resample(bootstrap.mean(gains), len(gains)).interval
  interval = '' if np.isnan(mean.low) else f' [{mean.low:+.4f}, {mean.high:+.4f}]'
  return (
    f'Mean gain of {by}: {mean.value:+.4f}{interval}. The scorer that chose cannot '
    'show whether they are better: ask another, or people.'
  )
