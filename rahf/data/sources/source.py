"""Opens folders and files of images with prompts, and streams them in order."""

import glob
import pathlib
from collections.abc import Callable, Iterator, Sequence

from rahf.data.images import files
from rahf.data.sources import tables, tar, tfrecords
from rahf.data.sources.folder import ImageFiles
from rahf.data.sources.item import Load, Reader, Wanted, digest
from rahf.errors import InputError

KINDS = (
  'a folder of images with text files or --prompts, a .csv, .tsv, .jsonl or .parquet '
  'table, a WebDataset .tar, TFRecords, or a folder or quoted pattern of such files'
)
_READERS: dict[str, Callable[[pathlib.Path], Reader]] = {
  '.csv': tables.Delimited,
  '.tsv': tables.Delimited,
  '.jsonl': tables.JsonLines,
  '.parquet': tables.Parquet,
  '.tar': tar.Tar,
  '.tar.gz': tar.Tar,
  '.tgz': tar.Tar,
  '.tfrecord': tfrecords.Shard,
}
# A folder of images may have these beside them, as lists of its own.
_LISTS = ('.csv', '.tsv', '.jsonl')


class Source:
  """Rows of one or several files, one after the other.

  Attributes:
    rows: how many.
    digest: differs where names, sizes or times of the files do; for a folder of
      images, their names.
    linked: folders that are links, and were not looked into.
  """

  def __init__(
    self, path: str, readers: Sequence[Reader], linked: Sequence[pathlib.Path] = ()
  ):
    """Counts the rows; reads no image.

    Args:
      path: as it was given, for errors.
      linked: see above.
    """
    self._path, self._readers, self.linked = path, readers, linked
    self._counts, self.digest = self._scan()
    self.rows = sum(self._counts)

  def read(self, wanted: Wanted) -> Iterator[tuple[int, Load]]:
    """Yields position and row of those that are wanted, in order.

    Raises:
      InputError: a file has more rows than were counted, or fewer.
    """
    start = 0
    for reader, count in zip(self._readers, self._counts, strict=True):
      of_file = self._in_file(wanted, start, count)
      left = sum(map(of_file, range(count)))
      # A file for other processes stays closed.
      if left:
        for number, load in reader.read(of_file):
          left -= 1
          yield start + number, load
        if left:
          raise self._changed()
      start += count

  def check_unchanged(self) -> None:
    """Looks at the files once more, images excepted.

    Raises:
      InputError: something is not as it was.
    """
    if self._scan() != (self._counts, self.digest):
      raise self._changed()

  def _scan(self) -> tuple[list[int], str]:
    scanned = [reader.scan() for reader in self._readers]
    return [count for count, _ in scanned], digest(version for _, version in scanned)

  def _in_file(self, wanted: Wanted, start: int, count: int) -> Wanted:
    def of_file(number: int) -> bool:
      if number >= count:
        raise self._changed()
      return wanted(start + number)

    return of_file

  def _changed(self) -> InputError:
    return InputError(
      f'--input {self._path} changed while it was read; leave it alone until all is '
      'done, and give another --output, since rows may have been taken for others'
    )


def open_source(path: str, prompts: str = '') -> Source:
  """Opens KINDS.

  Args:
    prompts: a table with the prompts of a folder of images, '' for text files beside
      the images, or if the input has the prompts itself.

  Raises:
    InputError: it is not one of these, is damaged, or holds nothing.
  """
  linked: list[pathlib.Path] = []
  found = _find(path, linked)
  if isinstance(found, list):
    if prompts:
      raise InputError(
        f'--prompts {prompts}: it is for a folder of images; {path} has prompts itself'
      )
    source = Source(path, [_READERS[kind(file)](file) for file in found], linked)
  else:
    table = pathlib.Path(prompts).expanduser() if prompts else None
    source = Source(path, [ImageFiles(found, table)], linked)
  if not source.rows:
    raise InputError(f'--input {path}: it is empty')
  return source


def kind(path: pathlib.Path) -> str:
  """Returns the key of its reader, '' if there is none.

  Of TFRecords the name continues, as in shapes-test.tfrecord-00000-of-00004.
  """
  name = path.name.lower()
  if '.tfrecord' in name:
    return '.tfrecord'
  return next((suffix for suffix in _READERS if name.endswith(suffix)), '')


def _find(path: str, linked: list[pathlib.Path]) -> pathlib.Path | list[pathlib.Path]:
  """Returns the folder of images, or files of one kind in order."""
  where = pathlib.Path(path).expanduser()
  if where.is_dir():
    return _inside(where, linked)
  if where.exists():
    found = [where]
  else:
    found = sorted(map(pathlib.Path, glob.glob(str(where), recursive=True)))
  if not found:
    raise InputError(f'--input {path}: no such file or folder; give {KINDS}')
  for file in found:
    if not kind(file):
      raise InputError(f'--input {path}: {file} is of no known kind; give {KINDS}')
  return found


def _inside(
  folder: pathlib.Path, linked: list[pathlib.Path]
) -> pathlib.Path | list[pathlib.Path]:
  images, found = False, {}
  for file in files.walk(folder, linked):
    images = images or files.is_image(file)
    if kind(file):
      found.setdefault(kind(file), []).append(file)
  if images:
    found = {key: there for key, there in found.items() if key not in _LISTS}
  if len(found) + images != 1:
    there = ', '.join([*['images'] * images, *sorted(found)]) or 'nothing that is known'
    if linked:
      there += f' (besides linked folders, which are not followed: {linked[0]})'
    raise InputError(
      f'--input {folder} holds {there}; give a folder or pattern of one kind: {KINDS}'
    )
  return folder if images else sorted(next(iter(found.values())))
