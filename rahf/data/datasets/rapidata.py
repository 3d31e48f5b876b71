"""Builds a data set from the parquet files of Rapidata's rich feedback sets.

Data format, by column; the names in brackets are those of the 32k set:
  image                          bytes, or a struct with bytes
  prompt [sentence]              str
  [image_name]                   str    the uid, with its folder; else rows are numbered
  {coherence,alignment,style}_score  float  1 to 5, higher is better
  {coherence,alignment}_heatmap  float[H][W], [0, 1]; null, or nulls: not asked
  word_scores                    str    JSON, [["The", 1.37], …, ["[No_mistakes]", 4.2]]

Coherence is plausibility, style is aesthetics; there is no overall score. Scores become
(s - 1) / 4; the columns `…_score_norm` are not used, as they are rescaled per data set.

Word scores are sums of the trust of the annotators who marked a word; the total trust
is not given. Annotators who find no mistake mark no word, so the total is at least the
score of [No_mistakes] plus that of the most marked word, and dividing a word's score by
this sum gives an upper bound of its share. A label token (`label_words.label_spans`)
that touches several of the words gets the highest of their shares. Shares are stored as
`keyword_shares`; a label token is misaligned if its share exceeds a threshold.
"""

import functools
import math
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float

from rahf.data import label_words, schema
from rahf.data.datasets.joining import parts, writing
from rahf.data.datasets.joining.parts import AnnotatedImage
from rahf.data.datasets.joining.report import Report
from rahf.data.images.codec import ImageError, decode_image, encode_map
from rahf.errors import InputError
from rahf.fileio import parquet, strict_json

VERSION = '1.0.0'
SCORES = {'plausibility': 'coherence', 'alignment': 'alignment', 'aesthetics': 'style'}
MAPS = {'implausibility': 'coherence', 'misalignment': 'alignment'}
NAMES = {'uid': ('image_name',), 'prompt': ('prompt', 'sentence'), 'image': ('image',)}
LABELS = {
  'word_scores': 'text',
  **{f'{name}_score': 'number' for name in SCORES.values()},
  **{f'{name}_heatmap': 'list' for name in MAPS.values()},
}
NO_MISTAKE = ('[No_mistakes]', '[No_Mistake]')


def prepare_rapidata(
  data_dir: os.PathLike | str,
  *,
  name: str,
  files: os.PathLike | str,
  threshold: float = 0.5,
  dev: float = 0.05,
  test: float = 0.05,
  workers: int | None = None,
  overwrite: bool = False,
) -> tuple[pathlib.Path, Report]:
  """Writes one of Rapidata's sets as a data set.

  Args:
    data_dir: where to write; the result is `<data_dir>/<name>/<version>/`.
    name: of the data set, for config.data.name.
    files: folder of its parquet files, searched recursively.
    threshold: a word whose share exceeds this is misaligned.
    dev, test: shares of the prompts; the rest is for training.
    workers: number of threads; None for one per core.
    overwrite: replace an existing data set.

  Returns:
    The prepared directory, with report.json in it, and the report.

  Raises:
    InputError: there is no parquet file, one is damaged or lacks a column, or the
      directory exists.
  """
  target = writing.target_directory(data_dir, name, VERSION, overwrite)
  report, splits = Report(), {split: {} for split in schema.SPLITS}
  for sample in _plan(pathlib.Path(files), dev, test, report):
    splits[sample.split][sample.uid] = sample
  report.note_empty(splits)
  samples = [sample for found in splits.values() for sample in found.values()]
  writing.write(
    target,
    sorted(samples, key=lambda sample: sample.location),
    functools.partial(_records, threshold),
    report,
    sources={'files': files},
    overwrite=overwrite,
    settings={'threshold': threshold},
    workers=workers,
  )
  return target, report


def _plan(
  folder: pathlib.Path, dev: float, test: float, report: Report
) -> Iterator[AnnotatedImage]:
  """Yields the samples to read; reports the other rows."""
  paths = parquet.find(folder)
  if not paths:
    raise InputError(f'--files {folder}: no .parquet file below it')
  seen = set()
  for path in paths:
    numbered, names = path.relative_to(folder).with_suffix(''), _columns(path)
    light = [names[name] for name in ('prompt', 'uid') if name in names]
    for number, (row, values) in enumerate(parquet.light_rows(path, light)):
      uid = re.sub(r'\.(png|jpe?g|webp)$', '', values.get(names.get('uid')) or '')
      uid = uid or f'{numbered.as_posix()}-{number:06d}'
      prompt = values[names['prompt']] or ''
      prompt = prompt if prompt.strip() else ''
      split = writing.assign_split(prompt, dev, test) if prompt else schema.SPLITS[0]
      report.records[split] += 1
      if not prompt:
        report.add(split, uid, 'missing_prompt', 'the row has none')
      elif uid in seen:
        report.add(split, uid, 'duplicate_label', f'again in {row}')
      else:
        seen.add(uid)
        report.matched[split] += 1
        yield AnnotatedImage(split, uid, prompt, row)


def _columns(path: pathlib.Path) -> dict[str, str]:
  """Returns a file's columns by our names for them.

  Raises:
    InputError: it is damaged, or its columns are not those of this data set.
  """
  there = parquet.columns(path)
  found = {
    ours: name for ours, names in NAMES.items() for name in names if name in there
  }
  kinds = {found.get('prompt', 'prompt'): 'text', 'image': 'file', **LABELS}
  if 'uid' in found:
    kinds[found['uid']] = 'text'
  parquet.check(
    path,
    kinds,
    "give the folder of one of Rapidata's rich feedback sets, or convert the columns "
    'to the format described in rahf/data/datasets/rapidata.py',
  )
  return found


def _records(
  threshold: float, samples: Sequence[AnnotatedImage], note: parts.Note
) -> Iterator[tuple[AnnotatedImage, schema.Record | None]]:
  by_row = {sample.location: sample for sample in samples}
  ours = {
    path: {name: ours for ours, name in _columns(path).items()}
    for path in {row.file for row in by_row}
  }
  for row, values in parquet.read(by_row, _needed):
    names = ours[row.file]
    values = {names.get(k, k): _value(k, scalar) for k, scalar in values.items()}
    sample, record = by_row[row], None
    noted = functools.partial(note, sample)
    try:
      record = make_record(sample.uid, values, threshold, noted)
    except ImageError as error:
      noted('unreadable_image', str(error))
    yield sample, record


def _needed(path: pathlib.Path) -> list[str]:
  """Returns the columns of a file that are needed to make records."""
  names = {*_columns(path).values(), 'word_scores'}
  return sorted(
    name
    for name in parquet.columns(path)
    if name in names or name.endswith(('_heatmap', '_score'))
  )


def _value(name: str, scalar: pa.Scalar) -> Any:
  """Returns a Python value; maps become arrays, as lists would take 30x the memory.

  A null in a map becomes NaN.
  """
  if not name.endswith('_heatmap') or not scalar.is_valid:
    return scalar.as_py()
  shape, values, even = [len(scalar)], scalar.values, True
  while pa.types.is_nested(values.type):
    # A null row has no values.
    lengths = set(pc.list_value_length(values).fill_null(0).to_pylist())
    even = even and len(lengths) <= 1
    shape.append(max(lengths, default=0))
    values = values.flatten()
  values = values.to_numpy(zero_copy_only=False).astype(np.float32)
  # Rows of different lengths are not a map: they stay flat and are reported later.
  return values.reshape(shape) if even else values


def make_record(uid: str, row: dict[str, Any], threshold: float, note) -> schema.Record:
  """Returns the record of one row.

  Args:
    note: called with (reason, detail) for each masked label.

  Raises:
    ImageError: the image cannot be read.
  """
  image = row['image']
  image = image['bytes'] if isinstance(image, dict) else image
  decode_image(image or b'')
  prompt = row['prompt'] or ''
  tokens = tuple(label_words.label_tokens(prompt))
  shares = _shares(prompt, row['word_scores'], note)
  maps = (_map(row.get(f'{name}_heatmap'), ours, note) for ours, name in MAPS.items())
  return schema.Record(
    uid,
    image,
    prompt,
    tokens,
    tuple(int(share <= threshold) for share in shares),
    tuple(_score(row, name, note) for name in schema.SCORES),
    *maps,
    keyword_shares=shares,
  )


def _score(row: dict[str, Any], name: str, note) -> float:
  value = row.get(f'{SCORES[name]}_score') if name in SCORES else None
  if value is None or math.isnan(value):
    return math.nan
  if not 1 <= value <= 5:
    note('invalid_score', f'{name} {value}, not between 1 and 5')
    return math.nan
  return (value - 1) / 4


def _map(values: Float[np.ndarray, '...'] | None, name: str, note) -> bytes:
  """Returns the map as PNG; b'' if nobody was asked."""
  if values is None or np.isnan(values).all():
    return b''
  values = np.squeeze(values)
  # Half-precision values may exceed 1 through rounding.
  if values.ndim != 2 or not _within(values):
    note('unreadable_map', f'{name}: {values.shape}, not all in [0, 1]')
    return b''
  return encode_map(np.clip(values, 0, 1))


def _within(values: Float[np.ndarray, 'H W']) -> bool:
  return bool(np.all((values >= -1e-3) & (values <= 1.001)))


def _shares(prompt: str, text: str | None, note) -> tuple[float, ...]:
  """Returns the share of each label token; () if the words do not fit the prompt."""
  if not text:
    return ()
  try:
    pairs = [(str(word), float(score)) for word, score in strict_json.parse(text)]
    if not all(0 <= score < math.inf for _, score in pairs):
      raise ValueError('a score is below 0 or not finite')
  except (ValueError, TypeError) as error:
    note('invalid_label', f'word_scores {text[:80]!r}: {error}')
    return ()
  clean = sum(score for word, score in pairs if word in NO_MISTAKE)
  pairs = [pair for pair in pairs if pair[0] not in NO_MISTAKE]
  by_character, end = np.zeros(len(prompt)), 0
  for word, score in pairs:
    start = prompt.find(word, end)
    if start < 0:
      note('label_mismatch', f'{word!r} is not in {prompt!r} after character {end}')
      return ()
    end = start + len(word)
    by_character[start:end] = score
  total = clean + max((score for _, score in pairs), default=0)
  spans = label_words.label_spans(prompt)
  if total <= 0:
    return (0.0,) * len(spans)
  return tuple(float(by_character[start:end].max() / total) for start, end in spans)
