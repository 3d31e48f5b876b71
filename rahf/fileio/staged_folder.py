"""Folders that are written completely or not at all.

They are written to a staging folder and renamed, so a folder that exists is complete.
"""

import contextlib
from collections.abc import Iterator

from etils import epath

from rahf.fileio import locks

# In the staging folder: the new folder, and the old one while it is being replaced.
NEW, OLD = 'complete', 'replaced'


@contextlib.contextmanager
def staged(folder: epath.Path) -> Iterator[epath.Path]:
  """Yields a path to create; what is there takes the folder's place at the end.

  If anything is raised, the folder stays as it was.

  Raises:
    InputError: another process is writing the same folder.
  """
  staging = folder.parent / f'.{folder.name}.partial'
  with locks.locked(staging):
    try:
      _restore_old(staging, folder)
      _remove(staging / NEW)
      yield staging / NEW
      _replace(staging, folder)
    finally:
      _restore_old(staging, folder)
      _remove(staging)


def _restore_old(staging: epath.Path, folder: epath.Path) -> None:
  """Undoes the first rename of `_replace` if the second never happened."""
  if (staging / OLD).exists() and not folder.exists():
    (staging / OLD).rename(folder)


def _replace(staging: epath.Path, folder: epath.Path) -> None:
  _remove(staging / OLD)
  if folder.exists():
    folder.rename(staging / OLD)
  (staging / NEW).rename(folder)


def _remove(folder: epath.Path) -> None:
  if folder.exists():
    folder.rmtree()
