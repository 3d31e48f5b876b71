"""Atomic file writes: a file is complete, or not there at all."""

import contextlib
import os
import platform
from collections.abc import Iterator

from etils import epath


def write(path: epath.PathLike, content: str | bytes) -> None:
  """Writes a file, text as UTF-8, in place of an older one if there is one.

  Raises:
    OSError: it cannot be written; what was there stays. Each client of a bucket has
      errors of its own.
  """
  with temp_then_rename(path) as partial:
    partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def temp_then_rename(path: epath.PathLike) -> Iterator[epath.Path]:
  """Yields where to write what takes the path's place at the end, unless it fails.

  The name begins with a dot and the path's own, and is of this process alone: others
  may be writing the same. What a kill leaves under it is in nobody's way.
  """
  path = epath.Path(path)
  partial = path.with_name(f'.{path.name}.{platform.node()}.{os.getpid()}')
  try:
    yield partial
    if '://' not in os.fspath(partial):
      _flush(partial)
    partial.replace(path)
  except BaseException:
    # The first error is the one to know of, of buckets' many kinds too.
    with contextlib.suppress(Exception):
      partial.unlink(missing_ok=True)
    raise


def _flush(path: epath.Path) -> None:
  """Waits for the disk: after a power failure the new name might hold nothing."""
  file = os.open(path, os.O_RDONLY)
  try:
    os.fsync(file)
  finally:
    os.close(file)
