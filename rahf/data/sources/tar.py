"""WebDataset archives: <key>.png (or JPEG, WebP) and behind it <key>.txt or .json.

The key of a file is its path up to the first dot of its name. Nothing is unpacked.
"""

import functools
import gzip
import itertools
import pathlib
import tarfile
import zlib
from collections.abc import Iterator

from rahf import strict_json
from rahf.data.datasets.files import MOST_BYTES, MOST_TEXT, SUFFIXES, version
from rahf.data.sources.item import Item, Load, Wanted
from rahf.data.sources.tables import PROMPTS
from rahf.errors import InputError

# Bytes of each kind of member; others are passed over, and what is larger.
MOST = {**dict.fromkeys(SUFFIXES, MOST_BYTES), '.txt': MOST_TEXT, '.json': MOST_TEXT}
_DAMAGED = (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error)


class Tar:
  """The samples of one archive; the uid is the key."""

  def __init__(self, path: pathlib.Path):
    self._path = path

  def scan(self) -> tuple[int, str]:
    """See `item.Reader`."""
    try:
      with tarfile.open(self._path) as tar:
        return sum(1 for _ in _samples(tar)), version(self._path)
    except _DAMAGED as error:
      raise InputError(
        f'{self._path} is no complete tar archive ({error}); copy it again'
      ) from None

  def read(self, wanted: Wanted) -> Iterator[tuple[int, Load]]:
    """See `item.Reader`."""
    with tarfile.open(self._path) as tar:
      for number, (key, members) in enumerate(_samples(tar)):
        if wanted(number):
          # Before the next header is read, so that a disk reads straight on.
          files = {
            _suffix(member): tar.extractfile(member).read()
            for member in members
            if member.size <= MOST.get(_suffix(member), -1)
          }
          yield number, functools.partial(_load, key, files)


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, list[tarfile.TarInfo]]]:
  """Yields each key with its files; links and hidden files are passed over."""
  files = (
    member
    for member in _members(tar)
    if member.isfile() and not pathlib.PurePosixPath(member.name).name.startswith('.')
  )
  for key, members in itertools.groupby(files, _key):
    yield key, list(members)


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
  while member := tar.next():
    tar.members.clear()  # It would keep all of them.
    yield member
  # tarfile says nothing of a file that ends in front of a header, or in a damaged one.
  tar.fileobj.seek(tar.offset)
  if tar.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
    raise tarfile.ReadError(f'no end of the archive, damaged at byte {tar.offset}')


def _key(member: tarfile.TarInfo) -> str:
  folder, slash, name = member.name.rpartition('/')
  return folder + slash + name.split('.')[0]


def _suffix(member: tarfile.TarInfo) -> str:
  return pathlib.PurePosixPath(member.name).suffix.lower()


def _load(key: str, files: dict[str, bytes]) -> Item:
  images = [data for suffix, data in files.items() if suffix in SUFFIXES]
  try:
    prompt = _prompt(files)
  except ValueError as error:
    return Item(key, None, None, f'its prompt cannot be read: {error}')
  if len(images) != 1:
    return Item(key, prompt, None, f'{len(images)} images of this key, not one')
  return Item(key, prompt, images[0])


def _prompt(files: dict[str, bytes]) -> str | None:
  if '.txt' in files:
    return files['.txt'].decode('utf-8-sig').strip()
  values = strict_json.parse(files.get('.json', b'{}'))
  if not isinstance(values, dict):
    return None
  return next((values[name] for name in PROMPTS if name in values), None)
