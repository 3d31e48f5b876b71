"""Builds a data set of images and prompts without labels, as generators train on.

Reads what scoring reads: folders, tables, archives and TFRecords; see `source.KINDS`.
Nothing is dropped silently: the report lists every row that was left out.
"""

import functools
import os
import pathlib
from collections.abc import Iterator, Sequence

import tqdm

from rahf.data import schema
from rahf.data.datasets.joining import parts, writing
from rahf.data.datasets.joining.parts import AnnotatedImage
from rahf.data.datasets.joining.report import Report
from rahf.data.images import inputs
from rahf.data.images.codec import ImageError, decode_image
from rahf.data.sources.item import Item
from rahf.data.sources.source import Source, open_source
from rahf.errors import InputError
from rahf.fileio.table_files import shown

VERSION = '1.0.0'
# Models read a few hundred tokens; some collections have whole pages as captions.
LONG_WORDS = 1000


def prepare_images(
  data_dir: os.PathLike | str,
  *,
  name: str,
  input: str,
  prompts: os.PathLike | str | None = None,
  dev: float = 0.05,
  test: float = 0.05,
  workers: int | None = None,
  overwrite: bool = False,
) -> tuple[pathlib.Path, Report]:
  """Writes images and their prompts as a data set without labels.

  The split of an image depends on its prompt alone. Prompts are held in memory, images
  only while they are copied. Rows without a uid get their number.

  Args:
    data_dir: where to write; the result is `<data_dir>/<name>/<version>/`.
    name: of the data set, for config.data.name.
    input: images and prompts, one of `source.KINDS`.
    prompts: CSV, TSV, JSONL or parquet table, for a folder of images; None for text
      files next to the images, or if the input has prompts.
    dev, test: shares of the prompts; the rest is for training.
    workers: number of threads; None for one per core.
    overwrite: replace an existing data set.

  Returns:
    The prepared directory, with report.json in it, and the report.

  Raises:
    InputError: the input is missing or damaged, or changes; no image can be used; or
      the directory exists.
  """
  target = writing.target_directory(data_dir, name, VERSION, overwrite)
  report = Report('rows')
  source = open_source(input, os.fspath(prompts or ''))
  samples = _plan(source, dev, test, report)
  if not samples:
    first = report.lines[0]
    raise InputError(
      f'none of the {source.rows:,} rows of --input {input} has an image and a prompt; '
      f'first, {first.uid}: {first.detail}'
    )
  report.note_linked(source.linked)
  report.note_empty(
    {split: [s for s in samples if s.split == split] for split in schema.SPLITS}
  )
  writing.write(
    target,
    samples,
    functools.partial(_records, source),
    report,
    sources={'input': input, 'prompts': prompts},
    overwrite=overwrite,
    workers=workers,
    finish=lambda folder, uids: source.check_unchanged(),
  )
  return target, report


def _plan(
  source: Source, dev: float, test: float, report: Report
) -> list[AnnotatedImage]:
  """Returns the samples to write; reports the other rows.

  Their location is the image's own file; or the file with the row, and its position.
  """
  samples, seen = [], set()
  rows = source.read(lambda _: True)
  for position, load in tqdm.tqdm(rows, 'Prompts', source.rows, unit='row'):
    item, file = load(), source.file_of(position)
    uid, fault = _encodable(item.uid) or str(position), _fault(item)
    if not fault and uid in seen:
      fault = 'duplicate_uid', f'again in {file}'
    split = schema.SPLITS[0] if fault else writing.assign_split(item.prompt, dev, test)
    report.records[split] += 1
    if fault:
      report.add(split, uid, fault[0], _encodable(fault[1]))
      continue
    seen.add(uid)
    report.matched[split] += 1
    if (words := len(item.prompt.split())) > LONG_WORDS:
      report.add(split, uid, 'long_text', f'{words:,} words')
    own = isinstance(item.image, pathlib.Path)
    location = (str(item.image),) if own else (str(file), position)
    samples.append(AnnotatedImage(split, uid, item.prompt, location))
  return samples


def _fault(item: Item) -> tuple[str, str] | None:
  """Returns why a row cannot be used, as reason and detail; None if it can."""
  image, prompt = item.image, item.prompt
  if item.error:
    # If just one of the two is missing, the error is about it.
    if (image is None) == (prompt is None):
      return 'unreadable_row', item.error
    return 'missing_image' if image is None else 'missing_prompt', item.error
  if not isinstance(prompt, str) or not prompt.strip():
    return 'missing_prompt', f'its prompt is {shown(prompt)}'
  if _encodable(prompt) != prompt:
    return 'missing_prompt', f'its prompt {shown(prompt)} is not valid Unicode'
  if isinstance(image, pathlib.Path) and not os.path.exists(image):
    return 'missing_image', f'{image} does not exist'
  return None


def _records(
  source: Source, samples: Sequence[AnnotatedImage], note: parts.Note
) -> Iterator[tuple[AnnotatedImage, schema.Record | None]]:
  for sample, image in _images(source, samples):
    record = None
    try:
      data = image if isinstance(image, bytes) else inputs.read_file(image)
      decode_image(data)
      record = schema.Record.unlabelled(sample.uid, data, sample.prompt)
    except ImageError as error:
      note(sample, 'unreadable_image', _encodable(str(error)))
    yield sample, record


def _images(
  source: Source, samples: Sequence[AnnotatedImage]
) -> Iterator[tuple[AnnotatedImage, bytes | str]]:
  """Yields each sample with the bytes or the path of its image."""
  rows = {}
  for sample in samples:
    file, *position = sample.location
    if position:
      rows[position[0]] = sample
    else:
      yield sample, file
  for position, load in source.read_rows(rows):
    yield rows[position], load().image


def _encodable(text: str) -> str:
  """Replaces characters that UTF-8 cannot encode."""
  return text.encode('utf-8', 'replace').decode()
