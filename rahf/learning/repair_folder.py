"""Repairs all images of a source into a folder of `item_results`."""

import hashlib
import pathlib
from collections.abc import Iterator

import numpy as np

from rahf.data.images import inputs
from rahf.data.images.codec import ImageError
from rahf.data.sources.item import Item
from rahf.data.sources.source import Source
from rahf.drawing.heatmap import overlay
from rahf.errors import InputError
from rahf.inference.image_generator import Inpainter
from rahf.inference.scorer import Scorer
from rahf.learning.item_results import (
  Result,
  Row,
  Table,
  complete,
  forget,
  read_row,
)
from rahf.learning.repair import RepairOptions, repair
from rahf.learning.score_expression import Expression

TABLE = Table(
  'repairs.csv',
  ('file_name', 'prompt', 'uid', 'before', 'after', 'rounds', 'masked', 'note'),
  {'original': 'before', 'heatmap': '', 'mask': '', 'repaired': 'after'},
)


def repair_images(
  source: Source,
  folder: pathlib.Path,
  scorer: Scorer,
  inpainter: Inpainter,
  by: Expression,
  options: RepairOptions,
) -> list[Row]:
  """Repairs the images that are not done yet; returns the rows of all.

  Columns: values before and after; how many rounds made the image better; the share of
  the pixels that were drawn anew and kept; and why there was no further round, or what
  is wrong with an image, whose values are then None. Images that have changed since,
  and those with which something was wrong, are done again.
  """

  _forget_changed(source, folder)

  def work(missing: set[int]) -> Iterator[tuple[int, Result]]:
    for number, load in source.read(missing.__contains__):
      yield number, _repair(number, load(), scorer, inpainter, by, options)

  return complete(folder, source.rows, work, TABLE, 'Repairing')


def _forget_changed(source: Source, folder: pathlib.Path) -> None:
  rows = {i: row for i in range(source.rows) if (row := read_row(folder, i))}
  for number, load in source.read(rows.__contains__):
    row = rows[number]
    if row['before'] is None or row['digest'] != _digest(load()):
      forget(folder, number)


def _digest(item: Item) -> str:
  """Returns a digest of an image file and its prompt; '' if it cannot be read."""
  try:
    image = item.image
    data = image if isinstance(image, bytes) else inputs.read_file(str(image))
  except (InputError, ImageError, OSError):
    return ''
  return hashlib.sha256(f'{item.prompt}\0'.encode() + data).hexdigest()


def _repair(
  number: int,
  item: Item,
  scorer: Scorer,
  inpainter: Inpainter,
  by: Expression,
  options: RepairOptions,
) -> Result:
  prompt = item.prompt if isinstance(item.prompt, str) else ''
  row = {'prompt': prompt, 'uid': item.uid or str(number), 'before': None}
  row |= {'after': None, 'rounds': 0, 'masked': 0.0, 'note': item.error}
  row['digest'] = _digest(item)
  if not (item.error or prompt.strip()):
    row['note'] = 'it has no prompt'
  if row['note']:
    return Result(row)
  try:
    image = inputs.read_pixels(item.image)
    found = repair(image, prompt, scorer, inpainter, by, options)
  except InputError as error:
    return Result({**row, 'note': str(error)})
  row |= {'before': found.values[0], 'after': found.values[-1], 'note': found.end}
  row |= {'rounds': len(found.values) - 1, 'masked': float(found.mask.mean())}
  mask = np.repeat(255 * found.tried[..., None].astype(np.uint8), 3, 2)
  heatmap = overlay(image, found.before.heatmaps[options.heatmap])
  return Result(row, found.image, (image, heatmap, mask, found.image))
