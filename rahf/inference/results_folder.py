"""The folder that `--mode=infer` writes; kills and other jobs do not damage it.

  manifest.json       what made it; at the end the number of rows, and of those with an
                      error
  results.jsonl       or results.parquet: a row an image, in the order of the input
  maps/00000/…        heatmaps, by option, in a folder for each part
  parts/00000.jsonl   rows that are done; they become the results and are removed
  .lock               held by the job that is at work

A part is there as soon as it has its name, complete. Names are made of numbers, and of
letters of the uid: nothing of an input can lead outside.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rahf.data import schema
from rahf.errors import InputError
from rahf.fileio import atomic_write, strict_json
from rahf.version import __version__

MANIFEST = 'manifest.json'
FORMATS = ('jsonl', 'parquet')
# What a kill loses at most, for each process.
PART_ROWS = 128
_POLL_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Settings:
  """What results depend on; an output folder is of one of them.

  Attributes:
    model, input: digests.
    rows: of the input.
    maps, format: as of `infer.Job`.
    rahf: the version.
  """

  model: str
  input: str
  rows: int
  maps: str
  format: str
  rahf: str = __version__


class Output:
  """An output folder, opened by one of the processes that share the work.

  Attributes:
    folder: where it is.
    part_rows: rows of a part, the last perhaps excepted.
    parts: how many there are.
    summary: rows and errors, once all is done; else None.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    settings: Settings,
    *,
    about: Mapping[str, Any],
    part_rows: int = PART_ROWS,
    first: bool = True,
  ):
    """Continues in the folder; begins it if there is no manifest.

    Args:
      about: what else the manifest tells people.
      part_rows: for a new folder; an older one keeps its own.
      first: whether this is the process that begins it and has locked it; others wait.

    Raises:
      InputError: there are results of other settings, or their file is gone.
    """
    self.folder, self._settings = folder, settings
    self._parts = folder / 'parts'
    if first and not (folder / MANIFEST).exists():
      _write_json(
        folder / MANIFEST,
        {'settings': dataclasses.asdict(settings), 'part_rows': part_rows, **about},
      )
    wait_until((folder / MANIFEST).exists)
    manifest = self._manifest()
    if 'summary' in manifest and not self.results.exists():
      raise InputError(
        f'{self.results} is gone, though {folder / MANIFEST} says that all is done; '
        f'delete {folder} and run the same command again, or give another --output'
      )
    self.part_rows = manifest['part_rows']
    self.parts = -(-settings.rows // self.part_rows)

  @property
  def summary(self) -> dict[str, int] | None:
    return self._manifest().get('summary')

  @property
  def results(self) -> pathlib.Path:
    """The file with all rows."""
    return self.folder / f'results.{self._settings.format}'

  def done(self) -> set[int]:
    """Returns the numbers of the parts that are complete."""
    names = os.listdir(self._parts) if self._parts.exists() else []
    return {int(name[:-6]) for name in names if re.fullmatch(r'\d+\.jsonl', name)}

  def rows_of(self, part: int) -> range:
    """Returns the positions of a part's rows."""
    start = part * self.part_rows
    return range(start, min(start + self.part_rows, self._settings.rows))

  def map_path(self, position: int, uid: str, ending: str) -> str:
    """Returns where a row's map belongs, relative to the folder, which is made."""
    letters = re.sub(r'[^A-Za-z0-9_-]+', '_', uid)[-60:].strip('_')
    folder = pathlib.PurePosixPath('maps', f'{position // self.part_rows:05d}')
    (self.folder / folder).mkdir(parents=True, exist_ok=True)
    return str(folder / f'{position:08d}-{letters}{ending}')

  def write_part(self, part: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a part, complete or not at all."""
    assert len(rows) == len(self.rows_of(part)), (part, len(rows))
    self._parts.mkdir(exist_ok=True)
    lines = (json.dumps(row, allow_nan=False) + '\n' for row in rows)
    atomic_write.write(self._part_path(part), ''.join(lines))

  def finish(self) -> None:
    """Makes the results of the parts, of which none is missing."""
    # What kills have left may be as large as the results.
    for left in self.folder.glob(f'.{self.results.name}.*'):
      left.unlink()
    write = _write_parquet if self._settings.format == 'parquet' else _write_lines
    with atomic_write.temp_then_rename(self.results) as partial:
      errors = write(partial, self._read_parts())
    summary = {'rows': self._settings.rows, 'errors': errors}
    _write_json(self.folder / MANIFEST, self._manifest() | {'summary': summary})

  def remove_parts(self) -> None:
    """Removes what `finish` has made results of."""
    if self._parts.exists():
      shutil.rmtree(self._parts)

  def _part_path(self, part: int) -> pathlib.Path:
    return self._parts / f'{part:05d}.jsonl'

  def _read_parts(self) -> Iterator[list[dict[str, Any]]]:
    for part in range(self.parts):
      lines = self._part_path(part).read_text(encoding='utf-8').splitlines()
      assert len(lines) == len(self.rows_of(part)), self._part_path(part)
      yield [json.loads(line) for line in lines]

  def _manifest(self) -> dict[str, Any]:
    """Reads the manifest; raises InputError where it is of other settings."""
    path = self.folder / MANIFEST
    try:
      manifest = strict_json.read(path)
      there = manifest['settings']
    except (ValueError, KeyError, TypeError) as error:
      raise InputError(
        f'{path} is damaged ({error!r:.300}); give another --output'
      ) from None
    here = dataclasses.asdict(self._settings)
    other = [
      f'{name} was {there.get(name)}, is {value}'
      for name, value in here.items()
      if there.get(name) != value
    ]
    if other:
      raise InputError(
        f'{self.folder} holds results of something else: {"; ".join(other)}. Give '
        'another --output, or delete it'
      )
    return manifest


def check_place(folder: pathlib.Path) -> None:
  """Raises InputError if a folder holds something else than results."""
  if not folder.exists() or (folder / MANIFEST).exists():
    return
  # What a job that was killed at its start leaves.
  left = ('.lock', f'.{MANIFEST}')
  if not all(path.name.startswith(left) for path in folder.iterdir()):
    raise InputError(
      f'{folder} holds other files and no {MANIFEST}; give another --output'
    )


def check_apart(given: str, folder: pathlib.Path) -> None:
  """Raises InputError if an input would meet what is written, or the other way round.

  Args:
    given: a folder, a file, or a pattern, of which '**' may mean any folder below.
    folder: of the output.
  """
  start, any_depth, _ = given.partition('**')
  source, out = pathlib.Path(start).expanduser().resolve(), folder.resolve()
  walked = bool(any_depth) or source.is_dir()
  if (walked and out.is_relative_to(source)) or source.is_relative_to(out):
    raise InputError(
      f'--output={folder} and --input={given} are one inside the other: results would '
      'be read as input; give an --output beside the input'
    )


def digest_files(paths: Iterable[Any]) -> str:
  """Returns the SHA-256 of files' contents, of etils' or Python's paths."""
  state = hashlib.sha256()
  for path in paths:
    with path.open('rb') as file:
      while block := file.read(1 << 20):
        state.update(block)
  return state.hexdigest()


def wait_until(condition: Callable[[], bool]) -> None:
  """Returns as soon as other processes have made the condition true."""
  while not condition():
    time.sleep(_POLL_SECONDS)


def _write_json(path: pathlib.Path, values: Mapping[str, Any]) -> None:
  atomic_write.write(path, json.dumps(values, indent=2) + '\n')


def _write_lines(path: pathlib.Path, parts: Iterable[list[dict[str, Any]]]) -> int:
  """Writes all rows and returns how many have an error."""
  errors = 0
  with path.open('w', encoding='utf-8') as file:
    for rows in parts:
      errors += sum(row['error'] is not None for row in rows)
      file.writelines(json.dumps(row) + '\n' for row in rows)
  return errors


def _write_parquet(path: pathlib.Path, parts: Iterable[list[dict[str, Any]]]) -> int:
  """As `_write_lines`."""
  import pyarrow as pa
  import pyarrow.parquet as pq

  text, number = pa.string(), pa.float32()
  word = pa.struct([('word', text), ('p_misaligned', number)])
  columns = {
    **{'uid': text, 'prompt': text, 'height': pa.int32(), 'width': pa.int32()},
    **dict.fromkeys(schema.SCORES, number),
    **{'keywords': pa.list_(word), 'misaligned': pa.list_(text)},
    **{'truncated': pa.bool_(), **{f'{name}_map': text for name in schema.MAPS}},
    'error': text,
  }
  errors, layout = 0, pa.schema(columns.items())
  with pq.ParquetWriter(path, layout) as writer:
    for rows in parts:
      errors += sum(row['error'] is not None for row in rows)
      writer.write_table(pa.Table.from_pylist(rows, layout))
  return errors
