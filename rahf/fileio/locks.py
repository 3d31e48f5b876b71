"""Locks a folder so that one process at a time writes to it."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

from absl import logging
from etils import epath

from rahf.errors import InputError


@contextlib.contextmanager
def alone(folder: os.PathLike | str) -> Iterator[None]:
  """Keeps other processes out of a folder until this one is done, or ends.

  In a bucket there is nothing to lock by, and it does nothing.

  Args:
    folder: made if it is not there; it may be removed within.

  Raises:
    InputError: another process has it.
  """
  folder = epath.Path(folder)
  if '://' in os.fspath(folder):
    yield
    return
  folder.mkdir(parents=True, exist_ok=True)
  with open(folder / '.lock', 'w') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      # Whoever had it may have removed it since it was opened.
      if not os.fstat(lock.fileno()).st_nlink:
        raise BlockingIOError
    except BlockingIOError:
      raise InputError(
        f'another process is writing to {folder}; wait for it, or choose another folder'
      ) from None
    except OSError as error:
      if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
        raise
      logging.warning(
        'The file system of %s has no locks (%s): see to it that one process at a time '
        'writes there.',
        *(folder, error.strerror),
      )
    yield
