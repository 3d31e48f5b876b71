"""What a prepared data set looks like: a table, one column a split."""

import collections
import os
from typing import NamedTuple

import numpy as np

from rahf.data import images, prepared, records, schema
from rahf.data.records import RecordSplit
from rahf.errors import InputError


class Facts(NamedTuple):
  """What `stats` keeps of one record.

  Attributes:
    scores: order of schema.SCORES, NaN where not annotated.
    peaks: highest value of each map, order of schema.MAPS, NaN where not annotated.
    words: words in the prompt.
    aligned: share of aligned words, NaN where not annotated.
    size: 'width x height' before EXIF rotation.
    format: 'PNG', 'JPEG' or 'WEBP'.
  """

  scores: tuple[float, ...]
  peaks: tuple[float, ...]
  words: int
  aligned: float
  size: str
  format: str


def stats(path: os.PathLike | str, split: str | None = None) -> str:
  """Reads a prepared directory, or one split, and returns the table to print.

  Raises:
    InputError: not a prepared data set, no such split, or a damaged record.
  """
  directory, names = prepared.find(path)
  if split is not None:
    names = [split]
  columns = {}
  for name in names:
    opened = records.open_split(directory, name)
    columns[name] = summarise(prepared.map_records(opened, _measure))
  return _table(columns)


def _measure(split: RecordSplit, position: int) -> Facts:
  try:
    return measure(split[position])
  except images.ImageError as error:
    raise InputError(
      f'{split.where(position)}: {error}; `python -m rahf.data verify` lists all'
    ) from None


def measure(record: schema.Record) -> Facts:
  """Returns the facts of one record; decodes the maps and the image's header."""
  image = images.open_image(record.image)
  encoded = [getattr(record, f'{name}_map') for name in schema.MAPS]
  labels = record.keyword_labels
  return Facts(
    scores=record.scores,
    peaks=tuple(
      float(images.decode_map(data).max()) if data else float('nan') for data in encoded
    ),
    words=len(record.tokens),
    aligned=sum(labels) / len(labels) if labels else float('nan'),
    size=f'{image.width}x{image.height}',
    format=image.format,
  )


def summarise(facts: list[Facts]) -> dict[str, str]:
  """Returns row title -> text of one column of the table."""
  scores = np.array([fact.scores for fact in facts], np.float64)
  peaks = np.array([fact.peaks for fact in facts], np.float64)
  aligned = np.array([fact.aligned for fact in facts])
  length = np.percentile([fact.words for fact in facts], (5, 50, 95, 100))
  rows = {'records': f'{len(facts):,}'}
  missing = {}
  for index, name in enumerate(schema.SCORES):
    known = scores[~np.isnan(scores[:, index]), index]
    rows[f'{name} score, mean ± std'] = (
      f'{known.mean():.3f} ± {known.std():.3f}' if known.size else 'none'
    )
    missing[f'{name} score missing'] = np.isnan(scores[:, index])
  rows['words misaligned'] = (
    f'{1 - np.average(aligned[~np.isnan(aligned)], weights=_words(facts)):.1%}'
    if not np.isnan(aligned).all()
    else 'none'
  )
  rows['keyword labels missing'] = _share(np.isnan(aligned))
  for index, name in enumerate(schema.MAPS):
    rows[f'{name} map empty'] = _share(peaks[:, index] == 0)
    missing[f'{name} map missing'] = np.isnan(peaks[:, index])
  rows['prompt words, 5 / 50 / 95 % / max'] = ' / '.join(f'{v:.0f}' for v in length)
  # Usually nothing else is missing, so these rows are there only if something is.
  rows |= {title: _share(mask) for title, mask in missing.items() if mask.any()}
  for title, values in (
    ('format', [fact.format for fact in facts]),
    ('size', [fact.size for fact in facts]),
  ):
    common = collections.Counter(values).most_common(5)
    for value, number in common:
      rows[f'{title} {value}'] = f'{number / len(facts):.1%}'
  return rows


def _words(facts: list[Facts]) -> list[int]:
  return [fact.words for fact in facts if not np.isnan(fact.aligned)]


def _share(mask: np.ndarray) -> str:
  return f'{mask.mean():.1%}'


def _table(columns: dict[str, dict[str, str]]) -> str:
  titles = list(dict.fromkeys(title for rows in columns.values() for title in rows))
  # A size that only one split has would otherwise stand behind the others' formats.
  titles.sort(key=lambda title: title.startswith('size '))
  width = max(map(len, titles)) + 2
  cells = max(
    max(len(text) for rows in columns.values() for text in rows.values()) + 3, 9
  )
  lines = [' ' * width + ''.join(f'{name:>{cells}}' for name in columns)]
  for title in titles:
    values = (rows.get(title, '0.0%') for rows in columns.values())
    lines.append(f'{title:{width}}' + ''.join(f'{text:>{cells}}' for text in values))
  return '\n'.join(lines)
