"""Opens folders and files of images with prompts and streams their rows in order."""

import bisect
import glob
import itertools
import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from rahf.data import schema
from rahf.data.images import files
from rahf.data.sources import tables, tar, tfrecords
from rahf.data.sources.folder import ImageFiles
from rahf.data.sources.item import Item, Load, Reader, TextReader, Wanted, digest
from rahf.errors import InputError
from rahf.fileio.table_files import check_pyarrow

KINDS = (
  'a folder of images with text files or --prompts, a .csv, .tsv, .jsonl or .parquet '
  "table, Pick-a-Pic's parquet files, a WebDataset .tar, TFRecords, or a folder or "
  'quoted pattern of such files'
)
_TABLES: dict[str, Callable[[pathlib.Path, str], Reader]] = {
  '.csv': tables.Delimited,
  '.tsv': tables.Delimited,
  '.jsonl': tables.JsonLines,
  '.parquet': tables.Parquet,
}
_OTHERS: dict[str, Callable[[pathlib.Path], Reader]] = {
  '.tar': tar.Tar,
  '.tar.gz': tar.Tar,
  '.tgz': tar.Tar,
  '.tar.bz2': tar.Tar,
  '.tar.xz': tar.Tar,
  '.tfrecord': tfrecords.Shard,
}
# Ignored in a folder of images, which may contain such tables.
_TABLE_SUFFIXES = ('.csv', '.tsv', '.jsonl')


class Source:
  """The rows of one or several files in order.

  Attributes:
    rows: their number.
    digest: of the files' names, sizes and times; for a folder of images, of the names.
    linked: symlinked folders, which are not searched.
  """

  def __init__(
    self,
    label: str,
    readers: Mapping[pathlib.Path, Reader],
    linked: Sequence[pathlib.Path] = (),
  ):
    """Counts the rows without reading images.

    Args:
      label: the flag and path as given by the user, for errors.
      readers: by their file, or folder of images.
      linked: see above.
    """
    self._label, self.linked = label, linked
    self._files, self._readers = [*readers], [*readers.values()]
    self._counts, self.digest = self._scan()
    self._ends = [*itertools.accumulate(self._counts)]
    self.rows = self._ends[-1]

  def read(self, wanted: Wanted) -> Iterator[tuple[int, Load]]:
    """Yields the position and row of all wanted rows, in order.

    Raises:
      InputError: a file's number of rows has changed.
    """
    start = 0
    for reader, count in zip(self._readers, self._counts, strict=True):
      of_file = self._in_file(wanted, start, count)
      left = sum(map(of_file, range(count)))
      # Files that only other processes need are not opened.
      if left:
        for number, load in reader.read(of_file):
          left -= 1
          yield start + number, load
        if left:
          raise self._changed()
      start += count

  def read_texts(self) -> Iterator[tuple[int, Item]]:
    """Yields the position of each row, and the row without its image."""
    start = 0
    for reader, count in zip(self._readers, self._counts, strict=True):
      if isinstance(reader, TextReader):
        for number, item in reader.read_texts():
          yield start + number, item
      else:
        for number, load in reader.read(lambda _: True):
          yield start + number, load()._replace(image=None)
      start += count

  def read_rows(self, positions: Collection[int]) -> Iterator[tuple[int, Load]]:
    """Like `read`, of a few rows: takes no time for files that have none of them.

    Raises:
      InputError: a file has fewer rows than before.
    """
    for number, group in itertools.groupby(sorted(positions), self._file_number):
      start = self._ends[number] - self._counts[number]
      wanted = {position - start for position in group}
      rows = self._readers[number].read(wanted.__contains__)
      # Stops at the last of them, as an archive may be long.
      for row, load in itertools.islice(rows, len(wanted)):
        wanted.remove(row)
        yield start + row, load
      if wanted:
        raise self._changed()

  def file_of(self, position: int) -> pathlib.Path:
    """Returns the file with a row, or the folder of images."""
    return self._files[self._file_number(position)]

  def _file_number(self, position: int) -> int:
    return bisect.bisect_right(self._ends, position)

  def check_unchanged(self) -> None:
    """Scans the files again, without images.

    Raises:
      InputError: something has changed.
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
      f'{self._label} changed while being read; do not modify it until the run '
      'is done, and start again with a new output, since rows may have been mixed up'
    )


def open_source(
  path: str,
  prompts: str = '',
  *,
  images_only: bool = False,
  extra: str = '',
  flag: str = '--input',
) -> Source:
  """Opens an input of one of KINDS.

  Args:
    prompts: a table with the prompts of a folder of images; '' for text files next to
      the images, or if the input itself has prompts.
    images_only: whether a folder of images needs no prompts, and none are read.
    extra: a further column, if the input or `prompts` is a table; see `Item.extra`.
    flag: that gave the path, for errors.

  Raises:
    InputError: it is not one of these, is damaged, or is empty.
  """
  linked: list[pathlib.Path] = []
  label = f'{flag} {path}'
  found = _find(path, label, linked)
  if isinstance(found, list):
    if prompts:
      raise InputError(
        f'--prompts {prompts}: only valid for a folder of images; {path} has its own '
        'prompts'
      )
    source = Source(label, {file: _open(file, extra) for file in found}, linked)
  else:
    table = pathlib.Path(prompts).expanduser() if prompts else None
    images = ImageFiles(found, table, images_only=images_only, extra=extra)
    source = Source(label, {found: images}, linked)
  if not source.rows:
    raise InputError(f'{label}: it is empty')
  return source


def kind(path: pathlib.Path) -> str:
  """Returns the key of a file's reader, '' if there is none.

  TFRecords need not end in .tfrecord, as in shapes-test.tfrecord-00000-of-00004.
  """
  name = path.name.lower()
  if '.tfrecord' in name:
    return '.tfrecord'
  return next((s for s in (*_TABLES, *_OTHERS) if name.endswith(s)), '')


def _open(path: pathlib.Path, extra: str) -> Reader:
  suffix = kind(path)
  if suffix == '.parquet' and (reader := _pickapic(path)):
    return reader
  return _TABLES[suffix](path, extra) if suffix in _TABLES else _OTHERS[suffix](path)


def _pickapic(path: pathlib.Path) -> Reader | None:
  """Returns the reader of a file of Pick-a-Pic; None for other tables."""
  check_pyarrow()
  from rahf.data.sources import pickapic
  from rahf.fileio import parquet

  with parquet.open_file(path) as file:
    names = file.schema_arrow.names
  return pickapic.PickAPic(path) if pickapic.is_pickapic(names) else None


def _find(
  path: str, label: str, linked: list[pathlib.Path]
) -> pathlib.Path | list[pathlib.Path]:
  """Returns a folder of images, or sorted files of one kind."""
  where = pathlib.Path(path).expanduser()
  if where.is_dir():
    return _find_in_folder(where, label, linked)
  if where.exists():
    found = [where]
  else:
    found = sorted(map(pathlib.Path, glob.glob(str(where), recursive=True)))
  if not found:
    raise InputError(f'{label}: no such file or folder; give {KINDS}')
  for file in found:
    if not kind(file):
      raise InputError(f'{label}: {file} is not a known kind; give {KINDS}')
  return found


def _find_in_folder(
  folder: pathlib.Path, label: str, linked: list[pathlib.Path]
) -> pathlib.Path | list[pathlib.Path]:
  if (folder / schema.DATASET_INFO).exists():
    # Reports and tables may lie beside or below it.
    shards = sorted(file for file in folder.iterdir() if kind(file) == '.tfrecord')
    if shards:
      return shards
  images, found = False, {}
  for file in files.walk(folder, linked):
    images = images or files.is_image(file)
    if kind(file):
      found.setdefault(kind(file), []).append(file)
  if images:
    found = {key: there for key, there in found.items() if key not in _TABLE_SUFFIXES}
  if len(found) + images != 1:
    content = ', '.join([*['images'] * images, *sorted(found)]) or 'no known files'
    if linked:
      content += f' (symlinked folders are not searched: {linked[0]})'
    raise InputError(
      f'{label} contains {content}; give a folder or pattern of one kind: {KINDS}'
    )
  return folder if images else sorted(next(iter(found.values())))
