"""Caches arrays computed from shards in .npz files next to them."""

import io
import zipfile
import zlib

import numpy as np
import tensorflow as tf
from etils import epath

from rahf.fileio import atomic_write


def read(path: epath.Path, sizes: np.ndarray) -> dict[str, np.ndarray] | None:
  """Returns the cached arrays, or None if they are missing, damaged or outdated."""
  try:
    with np.load(io.BytesIO(path.read_bytes())) as archive:
      values = dict(archive)
    return values if np.array_equal(values['sizes'], sizes) else None
  except (OSError, tf.errors.OpError):
    return None
  # A crash may have left it incomplete; a wrong size in it may exceed the memory.
  except (EOFError, zipfile.BadZipFile, zlib.error, ValueError, KeyError, MemoryError):
    return None


def write(path: epath.Path, values: dict[str, np.ndarray]) -> None:
  """Caches arrays if the folder is writable.

  Args:
    values: must include the shards' `sizes`.
  """
  buffer = io.BytesIO()
  np.savez(buffer, **values)
  try:
    # Other processes may open the same split at the same time.
    atomic_write.write(path, buffer.getvalue())
  except (OSError, tf.errors.OpError):
    return  # A read-only folder is scanned every time.
