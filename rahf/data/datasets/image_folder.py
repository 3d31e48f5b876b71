"""Images by uid from a folder or tar archive of files, prompts from a table."""

import csv
import os
import pathlib
from collections.abc import Collection, Iterator

from rahf import strict_json
from rahf.data.datasets.files import open_files
from rahf.errors import InputError


class ImageFolder:
  """The wanted uids found among files named <uid>.<png, jpg, jpeg or webp>.

  Attributes:
    places: the wanted uids of which a file was found -> the file on disk and the path
      in it, if it is an archive; in the order of reading.
    parallel: whether several threads may read at once.
    prompts: uid -> prompt of its first row in the table.
    repeated: uid -> which file of several is read.
    conflicts: uid -> the differing prompts.
  """

  def __init__(
    self, folder: os.PathLike | str, table: os.PathLike | str, wanted: Collection[str]
  ):
    """Lists the files of `folder`, which may be an archive, and reads the table.

    Raises:
      InputError: no image file, or the table is damaged or lacks a column.
    """
    self._files = open_files(folder)
    self.parallel = self._files.parallel
    self.places: dict[str, tuple[pathlib.Path, pathlib.PurePath]] = {}
    self.prompts: dict[str, str] = {}
    self.repeated: dict[str, str] = {}
    self.conflicts: dict[str, str] = {}
    wanted = set(wanted)
    for path in self._files.paths:
      if path.stem not in wanted:
        continue
      if path.stem in self.places:
        first = self.places[path.stem][1]
        self.repeated[path.stem] = f'{first} used, not {path}'
      else:
        self.places[path.stem] = self._files.file(path), path
    for uid, prompt in read_prompts(table):
      if uid in wanted and prompt != self.prompts.setdefault(uid, prompt):
        self.conflicts[uid] = f'{self.prompts[uid]!r} used, not {prompt!r}'

  def read(self, uids: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yields (uid, image bytes as found)."""
    for uid in uids:
      yield uid, self._files.read(self.places[uid][1])


def read_prompts(path: os.PathLike | str) -> Iterator[tuple[str, str]]:
  """Yields (uid, prompt) of each row of a CSV, TSV, JSONL or parquet table.

  Columns: `uid`, or `filename` whose stem is the uid; `prompt` or `caption`.
  Rows without a prompt are passed over.

  Raises:
    InputError: the file is missing or damaged, of another kind, or lacks a column.
  """
  path = pathlib.Path(path)
  readers = {
    '.csv': lambda: _delimited(path, ','),
    '.tsv': lambda: _delimited(path, '\t'),
    '.jsonl': lambda: _json_lines(path),
    '.parquet': lambda: _parquet(path),
  }
  if not path.is_file():
    raise InputError(f'--prompts {path}: no such file')
  if path.suffix.lower() not in readers:
    raise InputError(
      f'--prompts {path}: the name must end in {", ".join(readers)}, which says how '
      'to read it'
    )
  try:
    for number, row in enumerate(readers[path.suffix.lower()](), 1):
      uid = row.get('uid')
      if uid in (None, ''):
        name = row.get('filename') or ''
        if not isinstance(name, str):
          raise InputError(
            f'--prompts {path}, row {number}: filename is {name!r}, not text; name it '
            'as the image file, or call the column uid'
          )
        uid = pathlib.PurePosixPath(name).stem
      prompt = row.get('prompt') or row.get('caption')
      if uid == '' or ('prompt' not in row and 'caption' not in row):
        raise InputError(
          f'--prompts {path}, row {number}: needs uid (or filename) and prompt (or '
          f'caption), has {", ".join(map(str, row))}'
        )
      if prompt:
        yield str(uid), prompt
  except InputError:
    raise
  except (csv.Error, ValueError) as error:
    raise InputError(
      f'--prompts {path}: cannot be read ({error}); save it as UTF-8'
    ) from error


def _delimited(path: pathlib.Path, delimiter: str) -> Iterator[dict[str, str]]:
  # Spreadsheets put a byte order mark in front of UTF-8.
  with path.open(encoding='utf-8-sig', newline='') as file:
    yield from csv.DictReader(file, delimiter=delimiter)


def _json_lines(path: pathlib.Path) -> Iterator[dict[str, str]]:
  with path.open(encoding='utf-8') as file:
    for number, line in enumerate(file, 1):
      if line.strip():
        row = strict_json.parse(line)
        if not isinstance(row, dict):
          raise InputError(f'--prompts {path}, line {number}: not a JSON object')
        yield row


def _parquet(path: pathlib.Path) -> Iterator[dict[str, str]]:
  check_pyarrow()
  import pyarrow as pa
  import pyarrow.parquet as pq

  names = ('uid', 'filename', 'prompt', 'caption')
  try:
    with pq.ParquetFile(path) as file:
      columns = [name for name in file.schema_arrow.names if name in names]
      for batch in file.iter_batches(columns=columns):
        yield from batch.to_pylist()
  except pa.ArrowException as error:
    raise InputError(
      f'--prompts {path}: cannot be read ({error}); copy it again'
    ) from error


def check_pyarrow() -> None:
  """Raises InputError if parquet files can be neither read nor written."""
  try:
    import pyarrow.parquet  # noqa: F401
  except ModuleNotFoundError:
    raise InputError(
      'parquet needs pyarrow, which is not installed: pip install "rahf[parquet]"'
    ) from None
