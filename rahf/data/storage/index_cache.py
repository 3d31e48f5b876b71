"""Arrays computed from shards, cached beside them in an .npz file."""

import io
import zipfile
import zlib

import numpy as np
import tensorflow as tf
from etils import epath

from rahf.fileio import atomic_write


def read(path: epath.Path, sizes: np.ndarray) -> dict[str, np.ndarray] | None:
  """Returns what `write` kept, if it was made from these very shards."""
  try:
    with np.load(io.BytesIO(path.read_bytes())) as archive:
      values = dict(archive)
    return values if np.array_equal(values['sizes'], sizes) else None
  except (OSError, tf.errors.OpError):
    return None
  # A machine that went down may have left half of it. Of a size that is a lie, as
  # much memory would be asked for.
  except (EOFError, zipfile.BadZipFile, zlib.error, ValueError, KeyError, MemoryError):
    return None


def write(path: epath.Path, values: dict[str, np.ndarray]) -> None:
  """Keeps arrays where the folder can be written.

  Args:
    values: with the shards' `sizes`.
  """
  buffer = io.BytesIO()
  np.savez(buffer, **values)
  try:
    # Other processes may be opening the same split.
    atomic_write.write(path, buffer.getvalue())
  except (OSError, tf.errors.OpError):
    return  # A folder that is only readable is scanned every time.
