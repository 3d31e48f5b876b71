"""Files that are read: images in a folder or a tar archive; nothing is unpacked."""

import os
import pathlib
import stat
import tarfile
import threading

from rahf.errors import InputError

SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp')


# Of an image, and of its prompt; what is larger is neither.
MOST_BYTES, MOST_TEXT = 2**28, 2**20


def read(path: pathlib.Path, most: int = MOST_BYTES) -> bytes:
  """Returns what is in a file.

  Raises:
    InputError: it has more than `most` bytes, or is a device or a pipe, which would
      not end.
    OSError: it cannot be read.
  """
  # Without waiting for whoever writes to a pipe.
  with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), 'rb') as file:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
      raise InputError(f'{path} is no regular file')
    data = file.read(most + 1)
  check_size(str(path), len(data), most)
  return data


def check_size(name: str, size: int, most: int = MOST_BYTES) -> None:
  """Raises InputError if a file has more than `most` bytes."""
  if size > most:
    raise InputError(f'{name} has more than {most} bytes')


class Folder:
  """The image files below a folder.

  Attributes:
    paths: sorted, complete.
  """

  # Whether several threads may read at once.
  parallel = True

  def __init__(self, folder: os.PathLike | str):
    self.paths: list[pathlib.PurePath] = [
      path
      for path in sorted(pathlib.Path(folder).rglob('*'))
      if path.suffix.lower() in SUFFIXES and path.is_file()
    ]

  def read(self, path: pathlib.PurePath) -> bytes:
    return read(pathlib.Path(path))

  def file(self, path: pathlib.PurePath) -> pathlib.Path:
    """Returns the file on disk that a path is in."""
    return pathlib.Path(path)


class Archive:
  """The image files of a tar archive; links in it are passed over.

  Attributes:
    paths: in the order in which they lie there.
    parallel: False if the archive is compressed: going back means beginning anew.
  """

  def __init__(self, file: os.PathLike | str):
    """Lists the archive.

    Raises:
      InputError: it is no tar archive, or damaged.
    """
    self._file, self._lock = pathlib.Path(file), threading.Lock()
    self.parallel = not _compressed(self._file)
    try:
      self._tar = tarfile.open(file)  # noqa: SIM115, read from as long as this lives
      members = [member for member in self._tar if member.isfile()]
    except (tarfile.TarError, EOFError) as error:
      raise InputError(f'--images {file}: no complete tar archive ({error})') from None
    self._members = {pathlib.PurePosixPath(m.name): m for m in members}
    self.paths: list[pathlib.PurePath] = [
      path for path in self._members if path.suffix.lower() in SUFFIXES
    ]

  def read(self, path: pathlib.PurePath) -> bytes:
    check_size(f'{self._file}: {path}', self._members[path].size)
    with self._lock:
      return self._tar.extractfile(self._members[path]).read()

  def file(self, path: pathlib.PurePath) -> pathlib.Path:
    """Returns the file on disk that a path is in."""
    del path
    return self._file


def _compressed(file: pathlib.Path) -> bool:
  try:
    with tarfile.open(file, 'r:'):
      return False
  except tarfile.TarError:
    return True


def open_files(path: os.PathLike | str) -> Folder | Archive:
  """Opens a folder or an archive.

  Raises:
    InputError: there is neither, or no image file in it.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise InputError(f'--images {path}: no such folder or archive')
  files = Folder(path) if path.is_dir() else Archive(path)
  if not files.paths:
    raise InputError(
      f'--images {path}: no {", ".join(SUFFIXES)} file in it; for Pick-a-Pic parquet '
      'files leave --prompts out'
    )
  return files


def version(path: pathlib.Path) -> str:
  """Returns a file's name and what changes when it does: size, and time in ns."""
  found = path.stat()
  return f'{path.name} {found.st_size} {found.st_mtime_ns}'
