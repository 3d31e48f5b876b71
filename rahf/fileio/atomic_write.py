"""Atomic file writes: a file is either complete or does not exist."""

import contextlib
import os
import platform
from collections.abc import Iterator

from etils import epath


def write(path: epath.PathLike, content: str | bytes) -> None:
  """Writes a file, text as UTF-8, and replaces an existing one.

  Raises:
    OSError: it cannot be written; an existing file stays unchanged. Bucket clients
      raise their own exceptions.
  """
  with temp_then_rename(path) as partial:
    partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def temp_then_rename(path: epath.PathLike) -> Iterator[epath.Path]:
  """Yields a temporary path, which is renamed to `path` if the block succeeds.

  The temporary name is hidden and unique to this process, as others may write the same
  file. A file left over after a kill does no harm.
  """
  path = epath.Path(path)
  partial = path.with_name(f'.{path.name}.{platform.node()}.{os.getpid()}')
  try:
    yield partial
    if '://' not in os.fspath(partial):
      _flush(partial)
    partial.replace(path)
  except BaseException:
    # An exception from unlinking must not hide the original one.
    with contextlib.suppress(Exception):
      partial.unlink(missing_ok=True)
    raise


def _flush(path: epath.Path) -> None:
  """Flushes to disk, as otherwise a power failure might leave the file empty."""
  file = os.open(path, os.O_RDONLY)
  try:
    os.fsync(file)
  finally:
    os.close(file)
