"""WebDataset archives: <key>.png (or JPEG, WebP) and next to it <key>.txt or .json.

The key of a file is its path up to the first dot of its name, and what comes after that
dot is its field. The fields png, jpg, jpeg, webp are the image, txt is the prompt, json
holds it as `prompt` or `caption`; others, such as seg.png, are passed over.

A key may have dots itself: where such a name has an image and a text, they are a row.
sd_v1.5_0.png with sd_v1.5_0.txt has the key sd_v1.5_0, though 5_0.png could be a field
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
from rahf.data.images.files import MOST_BYTES, MOST_TEXT, OTHERS, SUFFIXES, version
from rahf.data.sources.item import Item, Load, Wanted
from rahf.data.sources.tables import find_prompt
from rahf.errors import InputError
from rahf.fileio import table_files, text_files

# The fields of a row with the bytes that each may have.
IMAGES = {suffix[1:]: MOST_BYTES for suffix in (*SUFFIXES, *OTHERS)}
TEXTS = {'txt': MOST_TEXT, 'json': MOST_TEXT}
MOST = IMAGES | TEXTS
# How many other fields an error names.
_NAMED = 4


class Member(NamedTuple):
  """A file in an archive.

  Attributes:
    key: see above.
    inner: what is between the first dot of the name and the last, '' if they are one.
    field: what comes after the last dot.
    fault: why it cannot be read, '' if it can.
    read: returns what is in it.
  """

  key: str
  inner: str
  field: str
  fault: str
  read: Callable[[], bytes]


@dataclasses.dataclass
class TarSample:
  """The files of one row; however many there are, few are held.

  Attributes:
    key: the uid.
    members: those whose field is in MOST, of each field at most two.
    others: the first few other fields.
    passed_over: how many those are in all.
  """

  key: str
  members: list[Member] = dataclasses.field(default_factory=list)
  others: list[str] = dataclasses.field(default_factory=list)
  passed_over: int = 0

  def add(self, member: Member) -> None:
    if member.field not in MOST:
      self.passed_over += 1
      self.others += [member.field] * (len(self.others) < _NAMED)
    # A field that is there twice is an error, however often.
    elif [m.field for m in self.members].count(member.field) < 2:
      self.members.append(member)

  def images(self) -> list[Member]:
    """Returns the images, of formats that are not read only if there are no others."""
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
    # Going back in a compressed archive means to begin anew.
    ahead = files.is_compressed(self._path)
    with tarfile.open(self._path) as tar:
      for number, sample in enumerate(_samples(_members(tar, ahead))):
        if wanted(number):
          read = {m.field: m.read() for m in sample.members if not m.fault}
          yield number, functools.partial(_load, sample, read)


def _samples(members: Iterable[Member]) -> Iterator[TarSample]:
  for key, group in itertools.groupby(members, lambda member: member.key):
    rest = TarSample(key)
    # A name with further dots belongs to the key, or is one itself.
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
        rest.passed_over += len(found.members) + found.passed_over
        fields = [*(member.field for member in found.members), *found.others]
        rest.others = [*rest.others, *(f'{inner}.{f}' for f in fields)][:_NAMED]
    if rest.members or rest.passed_over:
      yield rest


def _members(tar: tarfile.TarFile, ahead: bool) -> Iterator[Member]:
  """Yields the files, links too, but for hidden ones.

  Args:
    ahead: read images and texts at once, so that the archive is read straight on.
  """
  for info in files.tar_members(tar):
    folder, slash, name = info.name.rpartition('/')
    if info.isdir() or name.startswith('.'):
      continue
    key, _, after = name.partition('.')
    inner, _, field = after.rpartition('.')
    field = field.lower()
    most = MOST.get(field, 0)
    read = functools.partial(_content, tar, info)
    if not info.isfile():
      fault = 'is a link or a device'
    elif info.size > most:
      fault = f'has more than {most} bytes'
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
  """Returns what is wrong with the files of a sample, '' if nothing is."""
  fields = [member.field for member in sample.members]
  if twice := [field for field in fields if fields.count(field) > 1]:
    return f'{twice[0]} is there twice with this key'
  if len(images := sample.images()) != 1:
    named = ', '.join([*(m.field for m in images), *filter(None, sample.others)])
    more = sample.passed_over - len(sample.others)
    named += f' and {more:,} more' if more else ''
    return (
      f'{len(images)} images of this key, not one; its files end in '
      f'{named or "nothing that is known"}'
    )
  return next((f'its {m.field} {m.fault}' for m in sample.members if m.fault), '')


def _prompt(read: dict[str, bytes]) -> str | None:
  if 'txt' in read:
    return text_files.decode(read['txt']).strip()
  if 'json' not in read:
    return None
  return find_prompt(table_files.parse_object(text_files.decode(read['json'])))
