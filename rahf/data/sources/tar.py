"""Reads WebDataset archives: <key>.png (or JPEG, WebP), then <key>.txt or <key>.json.

The key of a file is its path up to the first dot of its name; the rest is its field.
The fields png, jpg, jpeg and webp are the image, txt is the prompt, json contains it
as `prompt` or `caption`; others, such as seg.png, are ignored.

A key may contain dots, if a file name with dots has both an image and a text:
sd_v1.5_0.png and sd_v1.5_0.txt have the key sd_v1.5_0, though 5_0.png could be a field
of sd_v1. Nothing is unpacked.
"""

import dataclasses
import functools
import itertools
import pathlib
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from rahf.data.images import files
from rahf.data.images.files import (
  MAX_BYTES,
  MAX_TEXT_BYTES,
  SUFFIXES,
  UNSUPPORTED_SUFFIXES,
  version,
)
from rahf.data.sources.item import Item, Load, Wanted
from rahf.data.sources.tables import find_prompt
from rahf.errors import InputError
from rahf.fileio import table_files, text_files

# Field -> maximum number of bytes.
IMAGES = {suffix[1:]: MAX_BYTES for suffix in (*SUFFIXES, *UNSUPPORTED_SUFFIXES)}
TEXTS = {'txt': MAX_TEXT_BYTES, 'json': MAX_TEXT_BYTES}
MAX_BYTES_BY_FIELD = IMAGES | TEXTS
# At most this many other fields are named in errors.
_MAX_NAMED_FIELDS = 4


class Member(NamedTuple):
  """A file in an archive.

  Attributes:
    key: see above.
    inner: the part between the first and last dot of the name, '' if it has one dot.
    field: the part after the last dot.
    fault: why it cannot be read, '' if it can.
    read: returns its content.
  """

  key: str
  inner: str
  field: str
  fault: str
  read: Callable[[], bytes]


@dataclasses.dataclass
class TarSample:
  """The files of one row, in bounded memory.

  Attributes:
    key: the uid.
    members: files whose field is in MAX_BYTES_BY_FIELD, at most two per field.
    others: the first few other fields.
    num_others: number of other files.
  """

  key: str
  members: list[Member] = dataclasses.field(default_factory=list)
  others: list[str] = dataclasses.field(default_factory=list)
  num_others: int = 0

  def add(self, member: Member) -> None:
    if member.field not in MAX_BYTES_BY_FIELD:
      self.num_others += 1
      self.others += [member.field] * (len(self.others) < _MAX_NAMED_FIELDS)
    # Two members suffice to report a repeated field.
    elif [m.field for m in self.members].count(member.field) < 2:
      self.members.append(member)

  def images(self) -> list[Member]:
    """Returns the images; those of unsupported formats only if there are no others."""
    found = [member for member in self.members if member.field in IMAGES]
    return [m for m in found if f'.{m.field}' in SUFFIXES] or found

  def is_pair(self) -> bool:
    return bool(self.images()) and any(m.field in TEXTS for m in self.members)


class Tar:
  """The samples of one archive; the uid is the key."""

  def __init__(self, path: pathlib.Path):
    self._path = path

  def scan(self) -> tuple[int, str]:
    """See `item.Reader`."""
    files.check_pointer(self._path)
    try:
      with tarfile.open(self._path) as tar:
        count = sum(1 for _ in _samples(_members(tar, ahead=False)))
      return count, version(self._path)
    except files.TAR_ERRORS as error:
      raise InputError(
        f'{self._path} is not a complete tar archive ({error}); copy it again'
      ) from None

  def read(self, wanted: Wanted) -> Iterator[tuple[int, Load]]:
    """See `item.Reader`."""
    # Seeking back in a compressed archive means restarting.
    ahead = files.is_compressed(self._path)
    with tarfile.open(self._path) as tar:
      for number, sample in enumerate(_samples(_members(tar, ahead))):
        if wanted(number):
          read = {m.field: m.read() for m in sample.members if not m.fault}
          yield number, functools.partial(_load, sample, read)


def _samples(members: Iterable[Member]) -> Iterator[TarSample]:
  for key, group in itertools.groupby(members, lambda member: member.key):
    rest = TarSample(key)
    # A name with more dots belongs to this key, or is a key itself.
    for inner, of_name in itertools.groupby(group, lambda member: member.inner):
      if not inner:
        for member in of_name:
          rest.add(member)
        continue
      found = TarSample(f'{key}.{inner}')
      for member in of_name:
        found.add(member)
      if found.is_pair():
        yield found
      else:
        rest.num_others += len(found.members) + found.num_others
        fields = [*(member.field for member in found.members), *found.others]
        rest.others = [*rest.others, *(f'{inner}.{f}' for f in fields)][
          :_MAX_NAMED_FIELDS
        ]
    if rest.members or rest.num_others:
      yield rest


def _members(tar: tarfile.TarFile, ahead: bool) -> Iterator[Member]:
  """Yields all members but folders and hidden files.

  Args:
    ahead: read images and texts immediately, so that the archive is read sequentially.
  """
  for info in files.tar_members(tar):
    folder, slash, name = info.name.rpartition('/')
    if info.isdir() or name.startswith('.'):
      continue
    key, _, after = name.partition('.')
    inner, _, field = after.rpartition('.')
    field = field.lower()
    limit = MAX_BYTES_BY_FIELD.get(field, 0)
    read = functools.partial(_content, tar, info)
    if not info.isfile():
      fault = 'is a link or a device'
    elif info.size > limit:
      fault = f'has more than {limit} bytes'
    else:
      fault = ''
      if ahead:
        data = read()
        read = functools.partial(bytes, data)
    yield Member(folder + slash + key, inner, field, fault, read)


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
  return tar.extractfile(info).read()


def _load(sample: TarSample, read: dict[str, bytes]) -> Item:
  images = sample.images()
  try:
    prompt, error = _prompt(read), ''
  except ValueError as reason:
    prompt, error = None, f'its prompt cannot be read: {reason}'
  image = read.get(images[0].field) if images else None
  return Item(sample.key, prompt, image, _fault(sample) or error)


def _fault(sample: TarSample) -> str:
  """Returns what is wrong with the files of a sample, '' if they are valid."""
  fields = [member.field for member in sample.members]
  if twice := [field for field in fields if fields.count(field) > 1]:
    return f'{twice[0]} occurs twice for this key'
  if len(images := sample.images()) != 1:
    named = ', '.join([*(m.field for m in images), *filter(None, sample.others)])
    more = sample.num_others - len(sample.others)
    named += f' and {more:,} more' if more else ''
    return (
      f'{len(images)} images for this key, not one; its files end in '
      f'{named or "no known extension"}'
    )
  return next((f'its {m.field} {m.fault}' for m in sample.members if m.fault), '')


def _prompt(read: dict[str, bytes]) -> str | None:
  if 'txt' in read:
    return text_files.decode(read['txt']).strip()
  if 'json' not in read:
    return None
  return find_prompt(table_files.parse_object(text_files.decode(read['json'])))
