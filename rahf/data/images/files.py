"""Lists and reads image files in a folder or tar archive, without unpacking."""

import gzip
import os
import pathlib
import stat
import tarfile
import threading
import zlib
from collections.abc import Iterator

from rahf.errors import InputError
from rahf.fileio import lfs_pointer

SUFFIXES = (
  *('.png', '.apng', '.webp'),
  *('.jpg', '.jpeg', '.jpe', '.jfif', '.jif', '.jfi', '.pjpeg', '.pjp'),
)
# Unsupported image formats; such files are reported one by one, not ignored.
UNSUPPORTED_SUFFIXES = (
  *('.avif', '.avifs', '.bmp', '.dds', '.dib', '.exr', '.gif', '.hdr', '.heic'),
  *('.heics', '.heif', '.heifs', '.hif', '.ico', '.j2k', '.jp2', '.jpf', '.jpx'),
  *('.jxl', '.pbm', '.pgm', '.pnm', '.ppm', '.psd', '.qoi', '.svg', '.tga', '.tif'),
  *('.tiff',),
)

try:
  from lzma import LZMAError
except ImportError:  # Python may be built without; then it opens no .xz either.
  LZMAError = tarfile.TarError

# Raised for damaged tar archives.
TAR_ERRORS = (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, LZMAError)
# Limits for image files and prompt files.
MAX_BYTES, MAX_TEXT_BYTES = 2**28, 2**20


def read(path: pathlib.Path, limit: int = MAX_BYTES) -> bytes:
  """Returns the content of a file.

  Raises:
    InputError: it has more than `limit` bytes, or is a device or a pipe, which might
      never end.
    OSError: it cannot be read.
  """
  # O_NONBLOCK: do not wait for the writer of a pipe.
  with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), 'rb') as file:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
      raise InputError(f'{path} is not a regular file')
    data = file.read(limit + 1)
  check_size(str(path), len(data), limit)
  return data


def check_size(name: str, size: int, limit: int = MAX_BYTES) -> None:
  """Raises InputError if a file has more than `limit` bytes."""
  if size > limit:
    raise InputError(f'{name} has more than {limit} bytes')


def is_image(path: pathlib.PurePath) -> bool:
  """Returns whether a file's name is that of an image, of any format."""
  return path.suffix.lower() in (*SUFFIXES, *UNSUPPORTED_SUFFIXES)


def walk(
  folder: pathlib.Path, linked: list[pathlib.Path] | None = None
) -> Iterator[pathlib.Path]:
  """Yields the files in a folder and its subfolders, sorted within each folder.

  Hidden files and folders and symlinked folders are skipped.

  Args:
    linked: receives the symlinked folders.

  Raises:
    OSError: a folder cannot be read.
  """
  with os.scandir(folder) as entries:
    found = sorted(entries, key=lambda entry: entry.name)
  for entry in found:
    path = pathlib.Path(entry.path)
    if entry.name.startswith('.'):
      continue
    if entry.is_dir(follow_symlinks=False):
      yield from walk(path, linked)
    elif not (entry.is_symlink() and path.is_dir()):
      yield path
    elif linked is not None:
      linked.append(path)


def tar_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
  """Yields the members of a tar archive, without accumulating them in memory.

  Raises:
    tarfile.ReadError: the archive has no end marker, or data follow it.
  """
  while member := tar.next():
    tar.members.clear()
    yield member
  # tarfile does not report archives that end before a header or with a damaged one.
  tar.fileobj.seek(tar.offset)
  if tar.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
    raise tarfile.ReadError(f'no end of the archive, damaged at byte {tar.offset}')
  # Only zeros fill it up; of archives joined by cat, tarfile reads the first alone.
  while rest := tar.fileobj.read(tarfile.RECORDSIZE):
    if rest.strip(tarfile.NUL):
      raise tarfile.ReadError(
        f'more follows its end at byte {tar.offset}; cat does not join archives, tar '
        '--concatenate does'
      )


class Folder:
  """The image files below a folder.

  Attributes:
    paths: sorted full paths of images in any format.
    linked: symlinked folders, which are not searched.
  """

  # Whether several threads may read at once.
  parallel = True

  def __init__(self, folder: os.PathLike | str):
    self.linked: list[pathlib.Path] = []
    self.paths: list[pathlib.PurePath] = [
      path
      for path in walk(pathlib.Path(folder), self.linked)
      if is_image(path) and path.is_file()
    ]

  def read(self, path: pathlib.PurePath) -> bytes:
    return read(pathlib.Path(path))

  def file(self, path: pathlib.PurePath) -> pathlib.Path:
    """Returns the file on disk that contains an image."""
    return pathlib.Path(path)


class Archive:
  """The image files of a tar archive; links in it are skipped.

  Attributes:
    paths: images in any format, in archive order.
    linked: always empty.
    parallel: False if the archive is compressed: seeking back means restarting.
  """

  def __init__(self, file: os.PathLike | str):
    """Lists the archive.

    Raises:
      InputError: it is not a tar archive, or is damaged.
    """
    self.linked: list[pathlib.Path] = []
    self._file, self._lock = pathlib.Path(file), threading.Lock()
    check_pointer(self._file)
    self.parallel = not is_compressed(self._file)
    try:
      self._tar = tarfile.open(file)  # noqa: SIM115, read from as long as this lives
      members = [member for member in tar_members(self._tar) if member.isfile()]
    except TAR_ERRORS as error:
      raise InputError(
        f'--images {file}: not a complete tar archive ({error})'
      ) from None
    self._members = {pathlib.PurePosixPath(m.name): m for m in members}
    self.paths: list[pathlib.PurePath] = [
      path for path in self._members if is_image(path)
    ]

  def read(self, path: pathlib.PurePath) -> bytes:
    check_size(f'{self._file}: {path}', self._members[path].size)
    with self._lock:
      return self._tar.extractfile(self._members[path]).read()

  def file(self, path: pathlib.PurePath) -> pathlib.Path:
    """Returns the file on disk that contains an image."""
    del path
    return self._file


def check_pointer(path: pathlib.Path) -> None:
  """Raises InputError if a file is a Git LFS pointer."""
  with path.open('rb') as file:
    lfs_pointer.check(path, file.read(len(lfs_pointer.START)))


def is_compressed(file: pathlib.Path) -> bool:
  """Returns whether a tar archive is compressed."""
  try:
    with tarfile.open(file, 'r:'):
      return False
  except tarfile.TarError:
    return True


def open_files(path: os.PathLike | str) -> Folder | Archive:
  """Opens a folder or an archive.

  Raises:
    InputError: it does not exist or contains no image file.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise InputError(f'--images {path}: no such folder or archive')
  files = Folder(path) if path.is_dir() else Archive(path)
  if not files.paths:
    raise InputError(
      f'--images {path}: no {", ".join(SUFFIXES)} file in it; for Pick-a-Pic parquet '
      'files, omit --prompts'
    )
  return files


def version(path: pathlib.Path) -> str:
  """Returns a file's name, size and modification time, which change when it does."""
  found = path.stat()
  return f'{path.name} {found.st_size} {found.st_mtime_ns}'
