"""RichHF-18K with its images in one set of parquet files, as others have uploaded it.

Data format, by column, in files `<train, validation or test>-….parquet`, or in folders
of these names:
  filename                       str      <folder>/<uid>.png
  image                          bytes, or a struct with bytes
  caption                        str      the prompt
  {artifact,misalignment,aesthetics,overall}_score  float, [0, 1], higher is better
  {artifact,misalignment}_map    bytes, or a struct with bytes: PNG or JPEG
  prompt_misalignment_label      str      one digit a word: 1 aligned, 0 misaligned
How maps are encoded there is not documented; what is no PNG or JPEG is masked.
"""

import functools
import os
import pathlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import tqdm

from rahf.data import schema
from rahf.data.datasets import annotations, richhf18k, writing
from rahf.data.datasets.annotations import Annotation
from rahf.data.datasets.report import Report
from rahf.errors import InputError

SPLITS = {'train': 'train', 'validation': 'dev', 'dev': 'dev', 'test': 'test'}
COLUMNS = (
  *('filename', 'image', 'caption', 'prompt_misalignment_label'),
  *annotations.SCORES.values(),
  *annotations.MAPS.values(),
)
_BATCH_ROWS = 32


def prepare_mirror(
  data_dir: os.PathLike | str, *, files: os.PathLike | str, overwrite: bool = False
) -> tuple[pathlib.Path, Report]:
  """Writes the data set from parquet files that hold labels and images.

  Args:
    data_dir: where to write; the result is `<data_dir>/richhf18k/<version>/`.
    files: folder of the parquet files, searched recursively.
    overwrite: replace what was prepared there before.

  Returns:
    The prepared directory, with report.json in it, and the report.

  Raises:
    InputError: no parquet file of any split, a damaged one, or one without the columns;
      or the directory exists.
  """
  target = writing.target(data_dir, 'richhf18k', richhf18k.VERSION, overwrite)
  paths: dict[str, list[pathlib.Path]] = {}
  for path in sorted(pathlib.Path(files).rglob('*.parquet')):
    # By its own name, else by its folder's.
    for name in (path.name, path.parent.name):
      if split := next((SPLITS[key] for key in SPLITS if name.startswith(key)), None):
        paths.setdefault(split, []).append(path)
        break
  if not paths:
    raise InputError(
      f'--mirror {files}: no file {", ".join(f"{name}-….parquet" for name in SPLITS)}'
    )
  report, seen = Report(), set()
  # As from the release: an evaluation image is not trained on.
  order = [split for split in reversed(schema.SPLITS) if split in paths]

  def finish(folder: pathlib.Path) -> None:
    richhf18k.compare_with_release(report)
    report.write(folder / 'report.json', {'mirror': os.fspath(files)})

  writing.write(
    target,
    {split: _records(split, paths[split], report, seen) for split in order},
    finish,
  )
  return target, report


def _records(
  split: str, paths: list[pathlib.Path], report: Report, seen: set[str]
) -> Iterator[schema.Record]:
  """Yields the records of a split; notes what becomes of the others."""
  for path in paths:
    for row in tqdm.tqdm(_rows(path), desc=f'{split:5} {path.name}', unit='image'):
      uid = pathlib.PurePosixPath(row['filename'] or '').stem
      report.records[split] += 1
      note = functools.partial(report.add, split, uid)
      if uid in seen:
        note('duplicate_label', 'already taken')
        continue
      seen.add(uid)
      if not (uid and row['caption']):
        note('missing_prompt', 'the row has no file name or no caption')
        continue
      report.matched[split] += 1
      annotation = Annotation(
        uid,
        tuple(_number(row[name]) for name in annotations.SCORES.values()),
        tuple(_bytes(row[name]) for name in annotations.MAPS.values()),
        row['prompt_misalignment_label'] or '',
      )
      record = richhf18k.join(annotation, _bytes(row['image']), row['caption'], note)
      if record:
        report.prepared[split] += 1
        yield record
  report.check_prepared(split)


def _rows(path: pathlib.Path) -> Iterator[dict]:
  try:
    with pq.ParquetFile(path) as file:
      if missing := set(COLUMNS) - set(file.schema_arrow.names):
        raise InputError(f'{path} has no column {min(missing)}')
      for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(COLUMNS)):
        yield from batch.to_pylist()
  except (pa.ArrowException, OSError) as error:
    raise InputError(f'{path} cannot be read ({error}); download it again') from None


def _bytes(value) -> bytes:
  if isinstance(value, dict):
    value = value.get('bytes')
  return value if isinstance(value, bytes) else b''


def _number(value: float | None) -> float:
  return float('nan') if value is None else value
