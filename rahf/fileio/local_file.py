"""A local copy of a file that may be in a bucket."""

import dataclasses
import os
import tempfile

from etils import epath


@dataclasses.dataclass(frozen=True)
class LocalFile:
  """A file on this machine.

  Attributes:
    path: where it is.
    folder: what deletes the copy, once nothing refers to it any longer.
  """

  path: str
  folder: tempfile.TemporaryDirectory | None = None


def local_file(path: epath.Path) -> LocalFile:
  """Returns the file itself, or a temporary copy of one in a bucket."""
  if '://' not in os.fspath(path):
    return LocalFile(os.fspath(path))
  folder = tempfile.TemporaryDirectory(prefix='rahf-')
  copy = epath.Path(folder.name) / path.name
  path.copy(copy)
  return LocalFile(os.fspath(copy), folder)
