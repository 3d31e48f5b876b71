"""Reads preference pairs: one prompt, two images, and which one was preferred.

Pairs are read directly from Pick-a-Pic v1's parquet files (about 190 GB), without
copying; only the requested columns of one row group are in memory at a time.

Data format, by column, in files `<split>-….parquet` or in folders named `<split>`:
  ranking_id, user_id      int64     ids of the answer and of the user
  caption                  str       the prompt
  jpg_{0,1}                bytes     PNG, JPEG or WEBP despite the name; or a struct
                                     with bytes, Hugging Face's format for images
  image_{0,1}_uid          str
  model_{0,1}              str       the model that generated the image
  label_{0,1}              double    1 preferred, 0 not; .5, .5 a tie
  has_label                bool
  best_image_uid           str       the preferred one; not every value is an image's
  are_different            bool
  num_example_per_prompt   int64     pairs of this prompt in the split
The columns created_at, image_{0,1}_url and __index_level_0__ of the release are not
read. In 'validation_unique' and 'test_unique', each prompt has one pair.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int64

from rahf.data.schema import PAIR_SPLITS
from rahf.errors import InputError
from rahf.fileio import parquet

# Number of pairs in the release.
SPLITS = dict(zip(PAIR_SPLITS, (583_747, 17_439, 14_073, 500, 500), strict=True))
COLUMNS = pa.schema(
  [
    ('ranking_id', pa.int64()),
    ('user_id', pa.int64()),
    ('caption', pa.string()),
    ('image_0_uid', pa.string()),
    ('image_1_uid', pa.string()),
    ('model_0', pa.string()),
    ('model_1', pa.string()),
    ('label_0', pa.float64()),
    ('label_1', pa.float64()),
    ('has_label', pa.bool_()),
    ('best_image_uid', pa.string()),
    ('are_different', pa.bool_()),
    ('num_example_per_prompt', pa.int64()),
  ]
)
IMAGES = pa.schema([('jpg_0', pa.binary()), ('jpg_1', pa.binary())])
# Tells `validation` from `validation_unique`, and does not match `training`.
_SPLIT = re.compile(r'(train|(?:validation|test)(?:_unique)?)(?!_?[a-z])')
_REMEDY = (
  'add it, with nulls where it is unknown, or move the file out of the folder if it '
  'has no pairs'
)
# Rows decoded at once; about 10 MB of images.
_BATCH_ROWS = 16


class Pair(NamedTuple):
  """Two images of one prompt, and which was preferred.

  Missing numbers are None, missing texts ''.

  Attributes:
    ranking_id: of the answer.
    prompt: the caption.
    images: encoded bytes, unchanged; b'' if missing. `codec.decode_image` explains why
      an image cannot be decoded.
    uids: of the images.
    models: that generated the images.
    labels: as stored, NaN if missing; also set for pairs with has_label False, which
      PickScore trains on.
    preference: the probability that images[0] is preferred: 1, 0, or .5 for a tie; NaN
      if `parse_labels` finds none.
    has_label: as stored. If True and preference is NaN, the label is inconsistent.
    are_different: as stored, or None.
    num_example_per_prompt: pairs of this prompt in the complete split; PickScore
      weights pairs by its inverse.
    user_id: of the user who answered.
  """

  ranking_id: int | None
  prompt: str
  images: tuple[bytes, bytes]
  uids: tuple[str, str]
  models: tuple[str, str]
  labels: tuple[float, float]
  preference: float
  has_label: bool
  are_different: bool | None
  num_example_per_prompt: int | None
  user_id: int | None


@dataclasses.dataclass(frozen=True, eq=False)
class PairSplit:
  """The pairs of one split, in the order of its files; made by `open_pairs`.

  Attributes:
    name: the split's name.
    groups: (file, number in the file) of each row group.
    starts: position of the first pair of each row group, followed by the number of
      pairs. A row group is read as a whole, so shuffle row groups for training.
    footers: of each file; parsing one takes longer than reading small columns.
  """

  name: str
  groups: tuple[tuple[pathlib.Path, int], ...]
  starts: Int64[np.ndarray, 'groups+1']
  footers: Mapping[pathlib.Path, pq.FileMetaData]

  def __len__(self) -> int:
    return int(self.starts[-1])

  def __iter__(self) -> Iterator[Pair]:
    return self.read(0, len(self))

  def __getitem__(self, position: int) -> Pair:
    """Reads one pair. Slow: its whole row group may have to be decoded.

    Raises:
      InputError: as for `read`.
    """
    if not 0 <= position < len(self):
      raise IndexError(f'pair {position} of {len(self)} in {self.name}')
    return next(self.read(position, position + 1))

  def read(self, start: int, stop: int) -> Iterator[Pair]:
    """Yields the pairs at start, …, stop − 1.

    Holds one row group in memory, up to two and a half times the size of its images.

    Raises:
      InputError: a file is damaged or has no image columns.
    """
    for number in range(len(self.groups)):
      first, end = self.starts[number : number + 2].tolist()
      begin, end = max(start, first) - first, min(stop, end) - first
      if begin >= end:
        continue
      table = self._table(number, COLUMNS.names).slice(begin, end - begin)
      yield from map(
        _pair,
        table.to_pylist(),
        parse_labels(table).preference.tolist(),
        self._images(number, begin, end),
      )

  def tables(self, columns: Collection[str] = COLUMNS.names) -> Iterator[pa.Table]:
    """Yields a table for each row group, without images.

    Args:
      columns: names in COLUMNS.

    Raises:
      InputError: a file is damaged, or its columns are not Pick-a-Pic v1's.
    """
    for number in range(len(self.groups)):
      yield self._table(number, columns)

  def count_missing_images(self) -> int | None:
    """Counts null images using the files' footers; None if these lack the counts."""
    missing = 0
    for path, group in self.groups:
      footer = self.footers[path]
      for name in IMAGES.names:
        if name not in footer.schema.names:
          return None
        chunk = footer.row_group(group).column(footer.schema.names.index(name))
        if not chunk.is_stats_set or not chunk.statistics.has_null_count:
          return None
        missing += chunk.statistics.null_count
    return missing

  def where(self, position: int) -> str:
    """Returns a pair's file, row group and row for an error message."""
    number = int(np.searchsorted(self.starts, position, side='right')) - 1
    path, group = self.groups[number]
    return f'{path}, row group {group}, row {position - self.starts[number]}'

  def _table(self, number: int, columns: Collection[str]) -> pa.Table:
    path, group = self.groups[number]
    with parquet.open_file(path, self.footers[path]) as file:
      try:
        table = file.read_row_group(group, columns=list(columns))
      except parquet.ERRORS as error:
        raise parquet.damaged(path, group, error) from None
    return parquet.cast(table, COLUMNS, path)

  def _images(
    self, number: int, begin: int, end: int
  ) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Yields the two images of the rows begin, …, end − 1 of a row group."""
    path, group = self.groups[number]
    with parquet.open_file(path, self.footers[path]) as file:
      parquet.require(path, file, IMAGES.names, 'use Pick-a-Pic v1 with images')
      # With threads, encoded columns would stay in memory next to the decoded ones.
      batches = file.iter_batches(
        _BATCH_ROWS, row_groups=[group], columns=IMAGES.names, use_threads=False
      )
      row = 0
      while row < end:
        try:
          batch = next(batches)
        except parquet.ERRORS as error:
          raise parquet.damaged(path, group, error) from None
        low, high = max(begin - row, 0), min(end - row, batch.num_rows)
        row += batch.num_rows
        if low < high:
          batch = batch.slice(low, high - low)
          wanted = pa.table(
            {n: parquet.encoded_images(batch.column(n)) for n in IMAGES.names}
          )
          columns = parquet.cast(wanted, IMAGES, path).columns
          yield from zip(*(column.to_pylist() for column in columns), strict=True)


class Labels(NamedTuple):
  """Preferences of pairs, and which labels are unusable.

  Attributes:
    preference: the probability that image 0 is preferred, NaN if unknown.
    invalid: labelled, but not with 1, 0 or 0, 1 or .5, .5.
    contradicted: the labels prefer one image, but best_image_uid is the other.
  """

  preference: Float[np.ndarray, 'n']
  invalid: Bool[np.ndarray, 'n']
  contradicted: Bool[np.ndarray, 'n']


def parse_labels(table: pa.Table) -> Labels:
  """Returns the preferences; NaN for missing, invalid and contradicted labels.

  Ties are accepted whatever best_image_uid is.

  Args:
    table: the COLUMNS of n pairs.
  """
  first, second = (table.column(f'label_{side}').to_numpy() for side in (0, 1))
  labelled = _true(table.column('has_label'))
  # Nulls are NaN here, which is not valid.
  valid = np.isin(first, (0, 0.5, 1)) & (first + second == 1)
  names = [
    _true(pc.equal(table.column('best_image_uid'), table.column(f'image_{side}_uid')))
    for side in (0, 1)
  ]
  contradicted = ((first == 1) & names[1] & ~names[0]) | (
    (first == 0) & names[0] & ~names[1]
  )
  contradicted &= labelled & valid
  return Labels(
    np.where(labelled & valid & ~contradicted, first, np.nan),
    labelled & ~valid,
    contradicted,
  )


def split_files(folder: os.PathLike | str) -> dict[str, list[pathlib.Path]]:
  """Returns the parquet files below a folder by split, in the order of SPLITS.

  Raises:
    InputError: there are none, or the split of a file follows neither from its name nor
      from its folder's.
  """
  found: dict[str, list[pathlib.Path]] = {split: [] for split in SPLITS}
  for path in parquet.find(folder):
    match = _SPLIT.match(path.name) or _SPLIT.match(path.parent.name)
    if not match:
      raise InputError(
        f'{path} belongs to no known split; name it or its folder one of '
        f'{", ".join(f"{split}-…" for split in SPLITS)}, or move it out of the folder'
      )
    found[match[1]].append(path)
  if not any(found.values()):
    raise InputError(
      f'{folder}: no .parquet file below it; give the folder of Pick-a-Pic v1'
    )
  return {split: paths for split, paths in found.items() if paths}


def open_pairs(folder: os.PathLike | str, split: str) -> PairSplit:
  """Opens a split of a local copy of Pick-a-Pic v1; reads the files' footers.

  The variant without images is sufficient for everything but reading pairs.

  Args:
    folder: folder of the parquet files, searched recursively.
    split: a key of SPLITS.

  Raises:
    InputError: there is no file, one is truncated or lacks a column, or there are no
      pairs.
  """
  files = split_files(folder)
  if split not in files:
    raise InputError(f'{folder} has no split {split!r}, only {", ".join(files)}')
  groups, sizes, footers = [], [], {}
  for path in files[split]:
    with parquet.open_file(path) as file:
      parquet.require(path, file, COLUMNS.names, _REMEDY)
      footer = footers[path] = file.metadata
    groups += [(path, group) for group in range(footer.num_row_groups)]
    sizes += [footer.row_group(g).num_rows for g in range(footer.num_row_groups)]
  if not sum(sizes):
    raise InputError(f'split {split} of {folder} has no pairs')
  starts = np.cumsum([0, *sizes], dtype=np.int64)
  return PairSplit(split, tuple(groups), starts, footers)


def _true(column: pa.ChunkedArray) -> Bool[np.ndarray, 'n']:
  return pc.fill_null(column, False).to_numpy().astype(bool)


def _pair(
  row: dict, preference: float, images: tuple[bytes | None, bytes | None]
) -> Pair:
  labels = (row['label_0'], row['label_1'])
  return Pair(
    ranking_id=row['ranking_id'],
    prompt=row['caption'] or '',
    images=(images[0] or b'', images[1] or b''),
    uids=(row['image_0_uid'] or '', row['image_1_uid'] or ''),
    models=(row['model_0'] or '', row['model_1'] or ''),
    labels=tuple(float('nan') if label is None else label for label in labels),
    preference=preference,
    has_label=bool(row['has_label']),
    are_different=row['are_different'],
    num_example_per_prompt=row['num_example_per_prompt'],
    user_id=row['user_id'],
  )
