"""Locks a folder so that only one process at a time writes to it."""

import contextlib
import errno
import os
from collections.abc import Iterator

import filelock
from absl import logging
from etils import epath

from rahf.errors import InputError

# Errors of file systems without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextlib.contextmanager
def locked(folder: os.PathLike | str) -> Iterator[None]:
  """Locks a folder against other processes; does nothing in buckets.

  Args:
    folder: created if it does not exist; may be removed while locked.

  Raises:
    InputError: another process has locked it.
  """
  folder = epath.Path(folder)
  if '://' in os.fspath(folder):
    yield
    return
  folder.mkdir(parents=True, exist_ok=True)
  lock = filelock.FileLock(folder / '.lock')
  try:
    lock.acquire(blocking=False)
  except filelock.Timeout:
    raise InputError(
      f'another process is writing to {folder}; wait until it is done, or choose '
      'another folder'
    ) from None
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      raise
    logging.warning(
      'The file system of %s does not support locks (%s): make sure that only one '
      'process at a time writes there.',
      *(folder, error.strerror),
    )
  try:
    yield
  finally:
    lock.release()
