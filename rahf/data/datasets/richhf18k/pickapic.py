"""Finds images and prompts by uid in a local copy of Pick-a-Pic v1's parquet files.

The images are about 190 GB, and each appears in many rows. Therefore only uids and
captions are read first, and later only those row groups and image columns (0 or 1) that
contain a wanted image.
"""

import collections
import concurrent.futures
import functools
import itertools
import os
import pathlib
from collections.abc import Collection, Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import tqdm

from rahf.errors import InputError
from rahf.fileio import parquet

_NAMES = ('image_0_uid', 'image_1_uid', 'caption')
_COLUMNS = (*_NAMES, 'jpg_0', 'jpg_1')


class _Location(NamedTuple):
  """The position of an image; sorts in reading order."""

  file: pathlib.Path
  group: int
  row: int
  side: int

  def __str__(self) -> str:
    return f'{parquet.Row(*self[:3])} jpg_{self.side}'


class PickAPic:
  """The wanted uids found in a folder of parquet files.

  Attributes:
    locations: wanted uids that were found -> location, in reading order.
    linked: always empty; see `ImageFolder`.
    prompts: uid -> caption of its first row.
    unprompted: always empty; see `ImageFolder`.
    repeated: uid -> which of several locations is used. Their bytes are not compared:
      a uid identifies one image, and reading them all would double the work.
    conflicts: uid -> the differing captions.
  """

  # Whether several threads may read at once.
  parallel = True

  def __init__(self, folder: os.PathLike | str, wanted: Collection[str]):
    """Scans the uid and caption columns of every parquet file below `folder`.

    Raises:
      InputError: there is no parquet file, or one is damaged or lacks a column.
    """
    locations: dict[str, list[_Location]] = collections.defaultdict(list)
    self.linked: list[pathlib.Path] = []
    self.prompts: dict[str, str] = {}
    self.unprompted: dict[str, str] = {}
    self.conflicts: dict[str, str] = {}
    paths = parquet.find(folder)
    if not paths:
      raise InputError(
        f'--images {folder}: no .parquet file below it; for a folder of image files, '
        'also give --prompts TABLE'
      )
    scan = functools.partial(_scan, wanted=pa.array(sorted(wanted), pa.string()))
    with concurrent.futures.ThreadPoolExecutor() as pool:
      files = tqdm.tqdm(pool.map(scan, paths), 'Scanning uids', len(paths), unit='file')
      for location, uid, prompt in itertools.chain.from_iterable(files):
        locations[uid].append(location)
        if prompt:
          first = self.prompts.setdefault(uid, prompt)
          if prompt != first:
            used = f'{first!r} used, not {prompt!r} ({location})'
            self.conflicts.setdefault(uid, used)
    self.locations = {uid: found[0] for uid, found in locations.items()}
    self.repeated = {
      uid: f'{len(found)} places, first used: {found[0]}'
      for uid, found in locations.items()
      if len(found) > 1
    }

  def read(self, uids: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yields (uid, unchanged image bytes) in the order of the files."""
    groups = collections.defaultdict(dict)
    for uid in uids:
      file, group, row, side = self.locations[uid]
      groups[file, group][row, side] = uid
    for (path, group), wanted in sorted(groups.items()):
      sides = sorted({side for _, side in wanted})
      names = {f'jpg_{side}': side for side in sides}
      rows = {row for row, _ in wanted}
      for row, images in parquet.read_group(path, group, rows, names):
        for name, side in names.items():
          if uid := wanted.get((row, side)):
            # A null is reported as an unreadable image, like damaged bytes.
            image = images[name].as_py()
            if isinstance(image, dict):  # Hugging Face's format for images.
              image = image.get('bytes')
            yield uid, image or b''


def _scan(
  path: pathlib.Path, wanted: pa.Array
) -> list[tuple[_Location, str, str | None]]:
  """Returns (location, uid, caption) of each wanted image, row by row."""
  parquet.check(
    path,
    dict.fromkeys(('jpg_0', 'jpg_1'), 'file') | dict.fromkeys(_NAMES, 'text or bytes'),
    f'Pick-a-Pic v1 has {", ".join(_COLUMNS)} (its variant without images cannot be '
    'used). Move other parquet files out of the folder',
  )
  found = []
  for group, table in parquet.tables(path, _NAMES):
    hits = []
    for side in (0, 1):
      uids = table.column(f'image_{side}_uid').cast(pa.string())
      rows = pc.indices_nonzero(pc.is_in(uids, value_set=wanted)).to_pylist()
      hits += [(row, side, uids[row].as_py()) for row in rows]
    captions = table.column('caption')
    for row, side, uid in sorted(hits):
      found.append((_Location(path, group, row, side), uid, captions[row].as_py()))
  return found
