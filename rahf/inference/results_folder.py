"""The folder that `--mode=infer` writes; safe from kills and concurrent jobs.

  manifest.json       settings; at the end the number of rows, and of rows with an error
  results.jsonl       or results.parquet: a row for each image, in the input's order
  maps/00000/…        heatmaps, by option, in a folder for each part
  parts/00000.jsonl   finished rows; they become the results and are removed
  .lock               held by the running job

A part gets its name once it is complete. Names consist of numbers and of letters of the
uid, so that no input can lead outside the folder.
"""

import dataclasses
import itertools
import json
import os
import pathlib
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rahf.errors import InputError
from rahf.fileio import atomic_write, strict_json
from rahf.version import __version__

MANIFEST = 'manifest.json'
FORMATS = ('jsonl', 'parquet')
# The most rows that a kill loses, for each process.
PART_ROWS = 128
_POLL_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Settings:
  """What results depend on; equal for all results of an output folder.

  Attributes:
    model, input: digests.
    rows: number of rows of the input.
    maps, format: as in `infer.Job`.
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
    folder: its path.
    part_rows: rows of a part; the last part may have fewer.
    parts: number of parts.
    summary: rows and errors once everything is done, else None.
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
    """Opens the folder to continue it; begins it if there is no manifest.

    Args:
      about: more entries of the manifest, for people.
      part_rows: for a new folder; an existing one keeps its own.
      first: whether this process has locked the folder and begins it; others wait.

    Raises:
      InputError: it has results of other settings, or their file is gone.
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
        f'{self.results} is missing, although {folder / MANIFEST} says that it is '
        f'complete; delete {folder} and run the same command again, or give another '
        '--output'
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
    """Returns the numbers of the complete parts."""
    names = os.listdir(self._parts) if self._parts.exists() else []
    return {int(name[:-6]) for name in names if re.fullmatch(r'\d+\.jsonl', name)}

  def rows_of(self, part: int) -> range:
    """Returns the positions of a part's rows."""
    start = part * self.part_rows
    return range(start, min(start + self.part_rows, self._settings.rows))

  def map_path(self, position: int, uid: str, ending: str) -> str:
    """Returns the path of a row's map relative to the folder; makes its directory."""
    letters = re.sub(r'[^A-Za-z0-9_-]+', '_', uid)[-60:].strip('_')
    folder = pathlib.PurePosixPath('maps', f'{position // self.part_rows:05d}')
    (self.folder / folder).mkdir(parents=True, exist_ok=True)
    return str(folder / f'{position:08d}-{letters}{ending}')

  def write_part(self, part: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a part atomically."""
    assert len(rows) == len(self.rows_of(part)), (part, len(rows))
    self._parts.mkdir(exist_ok=True)
    lines = (json.dumps(row, allow_nan=False) + '\n' for row in rows)
    atomic_write.write(self._part_path(part), ''.join(lines))

  def finish(self) -> None:
    """Joins the parts, all of which must exist, to the results."""
    # Files left by kills may be as large as the results.
    for left in self.folder.glob(f'.{self.results.name}.*'):
      left.unlink()
    write = _write_parquet if self._settings.format == 'parquet' else _write_lines
    with atomic_write.temp_then_rename(self.results) as partial:
      errors = write(partial, self._read_parts())
    summary = {'rows': self._settings.rows, 'errors': errors}
    _write_json(self.folder / MANIFEST, self._manifest() | {'summary': summary})

  def remove_parts(self) -> None:
    """Removes the parts, which `finish` has joined."""
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
    """Reads the manifest; raises InputError if its settings differ."""
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
        f'{self.folder} has results of other settings: {"; ".join(other)}. Give '
        'another --output, or delete it'
      )
    return manifest


def check_place(folder: pathlib.Path) -> None:
  """Raises InputError if a folder has files that are not results."""
  if not folder.exists() or (folder / MANIFEST).exists():
    return
  # A job that was killed at its start leaves these.
  left = ('.lock', f'.{MANIFEST}')
  if not all(path.name.startswith(left) for path in folder.iterdir()):
    raise InputError(
      f'{folder} has other files and no {MANIFEST}; give another --output'
    )


def check_apart(
  given: str,
  folder: pathlib.Path,
  flags: tuple[str, str] = ('--input=', '--output='),
) -> None:
  """Raises InputError if input and output contain one another.

  Args:
    given: the input: a folder, a file, or a pattern, in which '**' matches any depth.
    folder: of the output.
    flags: that gave the two, for errors.
  """
  start, any_depth, _ = given.partition('**')
  source, out = pathlib.Path(start).expanduser().resolve(), folder.resolve()
  walked = bool(any_depth) or source.is_dir()
  if (walked and out.is_relative_to(source)) or source.is_relative_to(out):
    raise InputError(
      f'{flags[1]}{folder} and {flags[0]}{given} are one inside the other: results '
      f'would be read as input; give an {flags[1].rstrip("=")} beside the input'
    )


def wait_until(condition: Callable[[], bool]) -> None:
  """Waits until other processes have made the condition true."""
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
  """Writes all rows and returns how many have an error."""
  import pyarrow as pa
  import pyarrow.parquet as pq

  text, number = pa.string(), pa.float32()
  word = pa.struct([('word', text), ('p_misaligned', number)])
  types = {
    **{'uid': text, 'prompt': text, 'height': pa.int32(), 'width': pa.int32()},
    **{'keywords': pa.list_(word), 'misaligned': pa.list_(text)},
    **{'truncated': pa.bool_(), 'error': text},
  }

  def type_of(column: str) -> pa.DataType:
    return types.get(column, text if column.endswith('_map') else number)

  first = next(parts)  # All rows have the same columns: what their model says.
  errors, layout = 0, pa.schema([(name, type_of(name)) for name in first[0]])
  with pq.ParquetWriter(path, layout) as writer:
    for rows in itertools.chain([first], parts):
      errors += sum(row['error'] is not None for row in rows)
      writer.write_table(pa.Table.from_pylist(rows, layout))
  return errors
