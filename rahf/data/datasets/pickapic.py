"""Images and prompts by uid from a local copy of Pick-a-Pic v1's parquet files.

The images are some 190 GB, and an image stands in many rows. So the uids and
captions alone are read first; image columns are read later, and of those only
the row groups and the side (0 or 1) that hold a wanted image.
"""

import collections
import os
import pathlib
from collections.abc import Collection, Iterator, Set
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tqdm

from rahf.errors import InputError

_COLUMNS = ('image_0_uid', 'image_1_uid', 'caption', 'jpg_0', 'jpg_1')
# Rows decoded at once. Arrow holds one column of a row group besides, about three
# times over, whatever the settings.
_BATCH_ROWS = 32


class _Place(NamedTuple):
  """Where an image stands; ordered as the files are read."""

  file: pathlib.Path
  row_group: int
  row: int
  side: int

  def __str__(self) -> str:
    return f'{self.file.name} row group {self.row_group} row {self.row} jpg_{self.side}'


class PickAPic:
  """The wanted uids found in a folder of parquet files.

  Attributes:
    uids: the wanted uids that were found.
    prompts: uid -> caption of its first row.
    repeated: uid -> which place of several is read. Their bytes are not
      compared: a uid names one image, and reading all would double the work.
    conflicts: uid -> the differing captions.
  """

  def __init__(self, folder: os.PathLike | str, wanted: Collection[str]):
    """Scans the uid and caption columns of every parquet file below `folder`.

    Raises:
      InputError: no parquet file, a damaged one, or one without the columns.
    """
    self._places: dict[str, _Place] = {}
    self.prompts: dict[str, str] = {}
    self.repeated: dict[str, str] = {}
    self.conflicts: dict[str, str] = {}
    places: dict[str, int] = collections.Counter()
    values = pa.array(sorted(wanted), pa.string())
    paths = sorted(pathlib.Path(folder).rglob('*.parquet'))
    if not paths:
      raise InputError(
        f'--images {folder}: no .parquet file below it; for a folder of image files '
        'also give --prompts TABLE'
      )
    for path in tqdm.tqdm(paths, desc='Scanning uids', unit='file'):
      for place, uid, prompt in _scan(path, values):
        places[uid] += 1
        self._places.setdefault(uid, place)
        if prompt:
          first = self.prompts.setdefault(uid, prompt)
          if prompt != first:
            self.conflicts.setdefault(uid, f'{first!r} used, not {prompt!r} ({place})')
    for uid, number in places.items():
      if number > 1:
        self.repeated[uid] = f'{number} places, first used: {self._places[uid]}'

  @property
  def uids(self) -> Set[str]:
    return self._places.keys()

  def read(self, uids: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yields (uid, image bytes as found) in the order of the files."""
    groups = collections.defaultdict(dict)
    for uid in uids:
      file, group, row, side = self._places[uid]
      groups[file, group][row, side] = uid
    for (path, group), wanted in sorted(groups.items()):
      yield from _read_group(path, group, wanted)


def _open(path: pathlib.Path) -> pq.ParquetFile:
  try:
    file = pq.ParquetFile(path)
  except (pa.ArrowException, OSError) as error:
    raise InputError(
      f'{path} is no complete parquet file ({error}); download it again'
    ) from None
  missing = [name for name in _COLUMNS if name not in file.schema_arrow.names]
  if missing:
    raise InputError(
      f'{path}: no column {", ".join(missing)}; Pick-a-Pic v1 has '
      f'{", ".join(_COLUMNS)} (its variant without images cannot be used). Take '
      'other parquet files out of the folder'
    )
  return file


def _scan(
  path: pathlib.Path, wanted: pa.Array
) -> Iterator[tuple[_Place, str, str | None]]:
  """Yields (place, uid, caption) of each wanted image, row by row."""
  with _open(path) as file:
    for group in range(file.num_row_groups):
      try:
        table = file.read_row_group(group, columns=list(_COLUMNS[:3]))
      except (pa.ArrowException, OSError) as error:
        raise _damaged(path, group, error) from None
      hits = []
      for side in (0, 1):
        uids = table.column(f'image_{side}_uid').cast(pa.string())
        rows = pc.indices_nonzero(pc.is_in(uids, value_set=wanted)).to_pylist()
        hits += [(row, side, uids[row].as_py()) for row in rows]
      captions = table.column('caption')
      for row, side, uid in sorted(hits):
        yield _Place(path, group, row, side), uid, captions[row].as_py()


def _read_group(
  path: pathlib.Path, group: int, wanted: dict[tuple[int, int], str]
) -> Iterator[tuple[str, bytes]]:
  columns = sorted({f'jpg_{side}' for _, side in wanted})
  last = max(row for row, _ in wanted)
  start = 0
  with _open(path) as file:
    batches = file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns)
    while start <= last:
      try:
        batch = next(batches)
      except (pa.ArrowException, OSError) as error:
        raise _damaged(path, group, error) from None
      for row in range(start, start + batch.num_rows):
        for side in (0, 1):
          if uid := wanted.get((row, side)):
            # A null is reported as an unreadable image, like any other bytes.
            yield uid, batch.column(f'jpg_{side}')[row - start].as_py() or b''
      start += batch.num_rows


def _damaged(path: pathlib.Path, group: int, error: Exception) -> InputError:
  reason = ' '.join(str(error).split())
  return InputError(
    f'{path}: row group {group} cannot be read ({reason}); download the file again'
  )
