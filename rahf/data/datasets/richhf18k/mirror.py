"""Builds RichHF-18K from third-party parquet files with labels and images.

Data format, by column, in files named `<train, validation or test>-….parquet`, or in
folders of these names:
  filename                       str      <folder>/<uid>.png
  image                          bytes, or a struct with bytes
  caption                        str      the prompt
  {artifact,misalignment,aesthetics,overall}_score  float, [0, 1], higher is better
  {artifact,misalignment}_map    bytes, or a struct with bytes: PNG or JPEG
  prompt_misalignment_label      str      one digit per word: 1 aligned, 0 misaligned
The encoding of the maps is not documented: the highest level of 8 or 16 bits is taken
as 1, and maps that are not PNG or JPEG are masked.
"""

import functools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from rahf.data import schema
from rahf.data.datasets.joining import parts, writing
from rahf.data.datasets.joining.parts import AnnotatedImage
from rahf.data.datasets.joining.report import Report
from rahf.data.datasets.richhf18k import builder, label_files
from rahf.data.datasets.richhf18k.label_files import Annotation
from rahf.errors import InputError
from rahf.fileio import parquet

SPLITS = {'train': 'train', 'validation': 'dev', 'dev': 'dev', 'test': 'test'}
COLUMNS = {
  **dict.fromkeys(('filename', 'caption', 'prompt_misalignment_label'), 'text'),
  **dict.fromkeys(label_files.SCORES.values(), 'number'),
  **dict.fromkeys(('image', *label_files.MAPS.values()), 'file'),
}


def prepare_mirror(
  data_dir: os.PathLike | str,
  *,
  files: os.PathLike | str,
  workers: int | None = None,
  overwrite: bool = False,
) -> tuple[pathlib.Path, Report]:
  """Writes the data set from parquet files with labels and images.

  Args:
    data_dir: where to write; the result is `<data_dir>/richhf18k/<version>/`.
    files: folder of the parquet files, searched recursively.
    workers: number of threads; None for one per core.
    overwrite: replace an existing data set.

  Returns:
    The prepared directory, with report.json in it, and the report.

  Raises:
    InputError: no split has a parquet file, one is damaged or lacks a column, or the
      directory exists.
  """
  target = writing.target_directory(data_dir, 'richhf18k', builder.VERSION, overwrite)
  paths: dict[str, list[pathlib.Path]] = {}
  found = parquet.find(files)
  for path in found:
    # The split follows from the file's name, or else from its folder's.
    for name in (path.name, path.parent.name):
      if split := next((SPLITS[key] for key in SPLITS if name.startswith(key)), None):
        paths.setdefault(split, []).append(path)
        break
  if not paths:
    names = ', '.join(f'{name}-….parquet' for name in SPLITS)
    raise InputError(f'--mirror {files}: no file {names}')
  report = Report()
  if others := set(found) - {path for chosen in paths.values() for path in chosen}:
    report.notes.append(
      f'{len(others)} parquet files belong to no split and were skipped (first: '
      f'{min(others)})'
    )
  samples = _plan(paths, report)
  builder.compare_with_release(report)
  if not samples:
    raise InputError(f'--mirror {files}: no row has both a file name and a caption')
  writing.write(
    target,
    samples,
    _records,
    report,
    sources={'mirror': files},
    overwrite=overwrite,
    workers=workers,
  )
  return target, report


def _plan(
  paths: Mapping[str, Sequence[pathlib.Path]], report: Report
) -> list[AnnotatedImage]:
  """Returns the samples to read; reports the other rows."""
  samples: dict[str, AnnotatedImage] = {}
  # As for the release, no evaluation image is trained on.
  for split in reversed(schema.SPLITS):
    for path in paths.get(split, ()):
      parquet.check(
        path,
        COLUMNS,
        'convert the columns to the format described in '
        'rahf/data/datasets/richhf18k/mirror.py, or move other files out of the folder',
      )
      for row, values in parquet.light_rows(path, ('filename', 'caption')):
        uid = pathlib.PurePosixPath(values['filename'] or '').stem
        report.records[split] += 1
        if uid in samples:
          report.add(split, uid, 'duplicate_label', 'already taken')
        elif not (uid and values['caption']):
          detail = 'the row has no file name or no caption'
          report.add(split, uid, 'missing_prompt', detail)
        else:
          samples[uid] = AnnotatedImage(split, uid, values['caption'], row)
          report.matched[split] += 1
  return sorted(samples.values(), key=lambda sample: sample.location)


def _records(
  samples: Sequence[AnnotatedImage], note: parts.Note
) -> Iterator[tuple[AnnotatedImage, schema.Record | None]]:
  by_row = {sample.location: sample for sample in samples}
  for row, values in parquet.read(by_row, lambda _: COLUMNS):
    values = {name: value.as_py() for name, value in values.items()}
    sample = by_row[row]
    annotation = Annotation(
      sample.uid,
      tuple(_number(values[name]) for name in label_files.SCORES.values()),
      tuple(_bytes(values[name]) for name in label_files.MAPS.values()),
      values['prompt_misalignment_label'] or '',
    )
    noted = functools.partial(note, sample)
    image = _bytes(values['image'])
    yield sample, builder.join(annotation, image, sample.prompt, noted)


def _bytes(value) -> bytes:
  if isinstance(value, dict):
    value = value.get('bytes')
  return value if isinstance(value, bytes) else b''


def _number(value: float | None) -> float:
  return float('nan') if value is None else value
