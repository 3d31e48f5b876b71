"""Makes files available locally, including copies of files in buckets."""

import dataclasses
import os
import tempfile

from etils import epath

from rahf.fileio import lfs_pointer
from rahf.fileio.paths import is_local


@dataclasses.dataclass(frozen=True)
class LocalFile:
  """A file on this machine.

  Attributes:
    path: its path.
    folder: the copy's folder, deleted once nothing refers to it; None if not a copy.
  """

  path: str
  folder: tempfile.TemporaryDirectory | None = None


def local_file(path: epath.Path) -> LocalFile:
  """Returns the file itself, or a temporary copy of one in a bucket."""
  if is_local(path):
    return LocalFile(os.fspath(path))
  folder = tempfile.TemporaryDirectory(prefix='rahf-')
  copy = epath.Path(folder.name) / path.name
  path.copy(copy)
  return LocalFile(os.fspath(copy), folder)


def refuse_pointer(path: str | os.PathLike) -> None:
  """Raises InputError if a file is a Git LFS pointer instead of the data."""
  with epath.Path(path).open('rb') as file:
    lfs_pointer.check(path, file.read(len(lfs_pointer.START)))
