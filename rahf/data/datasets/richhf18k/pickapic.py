"""Images and prompts by uid from a local copy of Pick-a-Pic v1's parquet files.

The images are some 190 GB, and an image stands in many rows. So the uids and
captions alone are read first; image columns are read later, and of those only
the row groups and the side (0 or 1) that hold a wanted image.
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


class _Place(NamedTuple):
  """Where an image stands; ordered as the files are read."""

  file: pathlib.Path
  group: int
  row: int
  side: int

  def __str__(self) -> str:
    return f'{parquet.Row(*self[:3])} jpg_{self.side}'


class PickAPic:
  """The wanted uids found in a folder of parquet files.

  Attributes:
    places: the wanted uids that were found -> where, in the order of reading.
    linked: none.
    prompts: uid -> caption of its first row.
    unprompted: none; see `ImageFolder`.
    repeated: uid -> which place of several is read. Their bytes are not
      compared: a uid names one image, and reading all would double the work.
    conflicts: uid -> the differing captions.
  """

  # Whether several threads may read at once.
  parallel = True

  def __init__(self, folder: os.PathLike | str, wanted: Collection[str]):
    """Scans the uid and caption columns of every parquet file below `folder`.

    Raises:
      InputError: no parquet file, a damaged one, or one without the columns.
    """
    places: dict[str, list[_Place]] = collections.defaultdict(list)
    self.linked: list[pathlib.Path] = []
    self.prompts: dict[str, str] = {}
    self.unprompted: dict[str, str] = {}
    self.conflicts: dict[str, str] = {}
    paths = parquet.find(folder)
    if not paths:
      raise InputError(
        f'--images {folder}: no .parquet file below it; for a folder of image files '
        'also give --prompts TABLE'
      )
    scan = functools.partial(_scan, wanted=pa.array(sorted(wanted), pa.string()))
    with concurrent.futures.ThreadPoolExecutor() as pool:
      files = tqdm.tqdm(pool.map(scan, paths), 'Scanning uids', len(paths), unit='file')
      for place, uid, prompt in itertools.chain.from_iterable(files):
        places[uid].append(place)
        if prompt:
          first = self.prompts.setdefault(uid, prompt)
          if prompt != first:
            self.conflicts.setdefault(uid, f'{first!r} used, not {prompt!r} ({place})')
    self.places = {uid: found[0] for uid, found in places.items()}
    self.repeated = {
      uid: f'{len(found)} places, first used: {found[0]}'
      for uid, found in places.items()
      if len(found) > 1
    }

  def read(self, uids: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yields (uid, image bytes as found) in the order of the files."""
    groups = collections.defaultdict(dict)
    for uid in uids:
      file, group, row, side = self.places[uid]
      groups[file, group][row, side] = uid
    for (path, group), wanted in sorted(groups.items()):
      sides = sorted({side for _, side in wanted})
      names = {f'jpg_{side}': side for side in sides}
      rows = {row for row, _ in wanted}
      for row, images in parquet.read_group(path, group, rows, names):
        for name, side in names.items():
          if uid := wanted.get((row, side)):
            # A null is reported as an unreadable image, like any other bytes.
            image = images[name].as_py()
            if isinstance(image, dict):  # As Hugging Face saves images.
              image = image.get('bytes')
            yield uid, image or b''


def _scan(path: pathlib.Path, wanted: pa.Array) -> list[tuple[_Place, str, str | None]]:
  """Returns (place, uid, caption) of each wanted image, row by row."""
  parquet.check(
    path,
    dict.fromkeys(('jpg_0', 'jpg_1'), 'file') | dict.fromkeys(_NAMES, 'text or bytes'),
    f'Pick-a-Pic v1 has {", ".join(_COLUMNS)} (its variant without images cannot be '
    'used). Take other parquet files out of the folder',
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
      found.append((_Place(path, group, row, side), uid, captions[row].as_py()))
  return found
