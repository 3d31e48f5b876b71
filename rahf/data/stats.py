"""What a prepared data set looks like: facts of each record, and a table of them."""

import collections
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rahf.data import images, prepared, raw, records, schema
from rahf.data.consolidate import Annotation
from rahf.data.records import RecordSplit
from rahf.errors import InputError


class Facts(NamedTuple):
  """What is kept of one record.

  Attributes:
    scores: order of schema.SCORES, NaN where not annotated.
    differences: likewise, the largest score of an annotator less the smallest, on
      [0, 1]; NaN where it is not known what each of them said.
    coverage: share of each map's pixels that are above 0, order of schema.MAPS, NaN
      where not annotated.
    words: words in the prompt.
    aligned: share of aligned words, NaN where not annotated.
    size: 'width x height' before EXIF rotation.
    format: 'PNG', 'JPEG' or 'WEBP'.
  """

  scores: tuple[float, ...]
  differences: tuple[float, ...]
  coverage: tuple[float, ...]
  words: int
  aligned: float
  size: str
  format: str


def collect(
  path: os.PathLike | str, split: str | None = None
) -> dict[str, list[Facts]]:
  """Reads a prepared directory, or one split, and returns the facts by split.

  Raises:
    InputError: not a prepared data set, no such split, or a damaged record.
  """
  directory, names = prepared.find(path)
  if split is not None:
    names = [split]
  found = {}
  for name in names:
    opened, file = records.open_split(directory, name), raw.path(directory, name)
    annotations = raw.read(file) if file.exists() else {}

    def one(opened: RecordSplit, position: int, annotations=annotations) -> Facts:
      try:
        record = opened[position]
        return measure(record, annotations.get(record.uid, ()))
      except images.ImageError as error:
        raise InputError(
          f'{opened.where(position)}: {error}; `python -m rahf.data verify` lists all'
        ) from None

    found[name] = prepared.map_records(opened, one)
  return found


def measure(record: schema.Record, annotations: Sequence[Annotation] = ()) -> Facts:
  """Returns the facts of one record; decodes the maps and the image's header."""
  image = images.open_image(record.image)
  encoded = [getattr(record, f'{name}_map') for name in schema.MAPS]
  labels = record.keyword_labels
  return Facts(
    scores=record.scores,
    differences=_differences(annotations),
    coverage=tuple(
      float(np.mean(images.decode_map(data) > 0)) if data else float('nan')
      for data in encoded
    ),
    words=len(record.tokens),
    aligned=sum(labels) / len(labels) if labels else float('nan'),
    size=f'{image.width}x{image.height}',
    format=image.format,
  )


def _differences(annotations: Sequence[Annotation]) -> tuple[float, ...]:
  found = []
  for number, _ in enumerate(schema.SCORES):
    given = [a.scores[number] for a in annotations]
    given = [score for score in given if score is not None]
    known = len(given) > 1
    found.append((max(given) - min(given)) / 4 if known else float('nan'))
  return tuple(found)


def summarise(facts: Sequence[Facts]) -> dict[str, str]:
  """Returns row title -> text of one column of the table."""
  scores = np.array([fact.scores for fact in facts], np.float64)
  differences = np.array([fact.differences for fact in facts], np.float64)
  coverage = np.array([fact.coverage for fact in facts], np.float64)
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
  for index, name in enumerate(schema.SCORES):
    known = differences[~np.isnan(differences[:, index]), index]
    if known.size:
      rows[f'{name}: annotators agree / are one step apart at most'] = (
        f'{np.mean(known == 0):.1%} / {np.mean(known <= 0.25):.1%}'
      )
  rows['words misaligned'] = (
    f'{1 - np.average(aligned[~np.isnan(aligned)], weights=_words(facts)):.1%}'
    if not np.isnan(aligned).all()
    else 'none'
  )
  rows['keyword labels missing'] = _share(np.isnan(aligned))
  for index, name in enumerate(schema.MAPS):
    column = coverage[:, index]
    rows[f'{name} map empty'] = _share(column == 0)
    if (column > 0).any():
      rows[f'{name} map covers, if not empty, mean'] = (
        f'{column[column > 0].mean():.1%}'
      )
    missing[f'{name} map missing'] = np.isnan(column)
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


def _words(facts: Sequence[Facts]) -> list[int]:
  return [fact.words for fact in facts if not np.isnan(fact.aligned)]


def _share(mask: np.ndarray) -> str:
  return f'{mask.mean():.1%}'


def table(facts: Mapping[str, list[Facts]]) -> str:
  """Returns the table to print, a column a split."""
  columns = {name: summarise(found) for name, found in facts.items()}
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
