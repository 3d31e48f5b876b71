"""Finds the records of TFRecord files by their headers.

A TFRecord is `length: uint64, crc: uint32, data, crc: uint32`.
"""

import os
import struct
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from etils import epath
from jaxtyping import Int64

from rahf.errors import InputError
from rahf.fileio import lfs_pointer

_HEADER = struct.Struct('<QI')  # Length of the data and its checksum.
_COMPRESSED = {
  b'\x1f\x8b\x08': 'GZIP',
  b'BZh': 'bzip2',
  b'\xfd7zXZ\0': 'xz',
  b'\x28\xb5\x2f\xfd': 'Zstandard',
  b'PK\3\4': 'zip',
  **dict.fromkeys((b'\x78\x01', b'\x78\x5e', b'\x78\x9c', b'\x78\xda'), 'ZLIB'),
}
# What a record takes in addition to its data.
OVERHEAD = _HEADER.size + 4


def file_sizes(files: Sequence[os.PathLike | str]) -> Int64[np.ndarray, 'shards']:
  """Returns the sizes in bytes.

  Raises:
    InputError: a file is missing.
  """
  sizes = []
  for file in files:
    try:
      sizes.append(epath.Path(file).stat().length)
    except (OSError, tf.errors.OpError) as error:
      raise InputError(
        f'the shard {file} cannot be opened ({error}); copy or prepare the data set '
        'again'
      ) from None
  return np.array(sizes, np.int64)


def find_records(
  files: Sequence[epath.Path], sizes: np.ndarray, counts: Sequence[int | None]
) -> dict[str, np.ndarray]:
  """Returns shard, offset and length of every record, as in `RecordSplit`.

  Args:
    sizes: of the files, in bytes.
    counts: how many records each is expected to have, None if that is not known.

  Raises:
    InputError: a file is compressed, truncated, or has another number of records.
  """
  scanned = [_scan(*one) for one in zip(files, sizes.tolist(), counts, strict=True)]
  offsets, lengths = zip(*scanned, strict=True)
  shards = np.arange(len(files), dtype=np.int32)
  return {
    'shard': np.repeat(shards, [len(found) for found in offsets]),
    'offset': np.concatenate(offsets),
    'length': np.concatenate(lengths),
  }


def _scan(
  file: epath.Path, size: int, expected: int | None
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the offsets and lengths of a shard's records."""
  offsets, lengths = [], []
  position = 0
  with file.open('rb') as stream:
    while position < size:
      stream.seek(position)
      header = stream.read(_HEADER.size)
      length = _HEADER.unpack(header)[0] if len(header) == _HEADER.size else size
      if position + length + OVERHEAD > size:
        if not offsets:
          check_head(file)
        raise InputError(
          f'{file} is truncated in record {len(offsets)} at byte {position} (the file '
          f'has {size} bytes); copy it again or prepare the data set again'
        )
      offsets.append(position)
      lengths.append(length)
      position += length + OVERHEAD
  if expected not in (None, len(offsets)):
    # A file truncated between two records is a valid, shorter TFRecord file.
    raise InputError(
      f'{file} has {len(offsets)} records, but dataset_info.json lists {expected}; '
      'copy it again or prepare the data set again'
    )
  return np.array(offsets, np.int64), np.array(lengths, np.int64)


def check_head(file: os.PathLike | str) -> None:
  """Checks whether an unreadable file is compressed or a Git LFS pointer.

  Call it only for files whose first record cannot be read: the same bytes may start a
  valid file, as the length of its first record.

  Raises:
    InputError: the file is compressed, or a Git LFS pointer.
  """
  with epath.Path(file).open('rb') as stream:
    head = stream.read(len(lfs_pointer.START))
  lfs_pointer.check(file, head)
  for start, name in _COMPRESSED.items():
    if head.startswith(start):
      raise InputError(
        f'{file} is compressed ({name}), so that single records cannot be read; '
        'decompress it first, or write it without compression'
      )
