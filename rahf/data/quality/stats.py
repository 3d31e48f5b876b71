"""Computes statistics of a prepared data set, per record and as a table."""

import collections
import os
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rahf.data import schema
from rahf.data.images import codec
from rahf.data.labels import raw
from rahf.data.labels.agreement import krippendorff_alpha
from rahf.data.labels.consolidate import Annotation, mean_scores, word_positions
from rahf.data.storage import prepared, records
from rahf.data.storage.records import RecordSplit
from rahf.errors import InputError

# Prefixes of rows whose absence in a split means a share of 0.
SHARES = ('format ', 'size ')


class RecordStats(NamedTuple):
  """Statistics of one record.

  Attributes:
    uid: of the image.
    scores: order of schema.SCORES, NaN where not annotated.
    ratings: each annotator's scores, NaN where not asked; () without raw annotations.
    differences: order of schema.SCORES, largest minus smallest rating on [0, 1]; NaN
      with fewer than two ratings.
    marks: for each annotator and word, 1 if marked, else 0; () without raw annotations.
    coverage: share of each map's pixels that are above 0, order of schema.MAPS, NaN
      where not annotated.
    words: number of words in the prompt.
    aligned: share of aligned words, NaN where not annotated.
    size: '<width>x<height>' of the upright image.
    format: 'PNG', 'JPEG' or 'WEBP'.
  """

  uid: str
  scores: tuple[float, ...]
  ratings: tuple[tuple[float, ...], ...]
  differences: tuple[float, ...]
  marks: tuple[tuple[int, ...], ...]
  coverage: tuple[float, ...]
  words: int
  aligned: float
  size: str
  format: str


def collect(
  path: os.PathLike | str, split: str | None = None
) -> dict[str, list[RecordStats]]:
  """Reads a prepared directory, or one split, and returns the facts by split.

  Raises:
    InputError: it is not a prepared data set, the split does not exist, or a record is
      damaged.
  """
  directory, names = prepared.find(path)
  if split is not None:
    names = [split]
  found = {}
  for name in names:
    opened, file = records.open_split(directory, name), raw.path(directory, name)
    annotations = raw.read(file) if file.exists() else {}

    def one(opened: RecordSplit, position: int, annotations=annotations) -> RecordStats:
      try:
        record = opened[position]
        return measure(record, annotations.get(record.uid, ()))
      except codec.ImageError as error:
        raise InputError(
          f'{opened.where(position)}: {error}; `python -m rahf.data verify` lists all '
          'damaged records'
        ) from None

    found[name] = prepared.map_records(opened, one)
  return found


def measure(
  record: schema.Record, annotations: Sequence[Annotation] = ()
) -> RecordStats:
  """Returns the facts of one record; decodes its maps and the image's header."""
  image = codec.open_image(record.image)
  encoded = [getattr(record, f'{name}_map') for name in schema.MAPS]
  width, height = codec.upright_size(image)
  labels = record.keyword_labels
  return RecordStats(
    uid=record.uid,
    scores=record.scores,
    ratings=tuple(
      tuple(np.nan if s is None else s for s in a.scores) for a in annotations
    ),
    differences=mean_scores(annotations)[1],
    marks=tuple(
      _marks(a.misaligned_words, record.tokens)
      for a in annotations
      if a.misaligned_words is not None
    ),
    coverage=tuple(
      float(np.mean(codec.decode_map(data) > 0)) if data else float('nan')
      for data in encoded
    ),
    words=len(record.tokens),
    aligned=sum(labels) / len(labels) if labels else float('nan'),
    size=f'{width}x{height}',
    format=image.format,
  )


def _marks(words: Collection[int | str], tokens: Sequence[str]) -> tuple[int, ...]:
  positions = word_positions(words, tokens)
  return tuple(int(position in positions) for position, _ in enumerate(tokens))


def summarise(facts: Sequence[RecordStats]) -> dict[str, str]:
  """Returns one column of the table, as row title -> text."""
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
      rows[f'{name}: annotators agree / differ by at most one step'] = (
        f'{np.mean(known == 0):.1%} / {np.mean(known <= 0.25):.1%}'
      )
    alpha = krippendorff_alpha(_side_by_side([f.ratings for f in facts], index))
    if not np.isnan(alpha):
      rows[f"{name}: annotators' alpha"] = f'{alpha:.3f}'
  alpha = krippendorff_alpha(_words_side_by_side([f.marks for f in facts]), 'nominal')
  if not np.isnan(alpha):
    rows["misaligned words: annotators' alpha"] = f'{alpha:.3f}'
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
      rows[f'{name} map coverage if not empty, mean'] = (
        f'{column[column > 0].mean():.1%}'
      )
    missing[f'{name} map missing'] = np.isnan(column)
  rows['prompt words, 5 / 50 / 95 % / max'] = ' / '.join(f'{v:.0f}' for v in length)
  # These rows appear only if something is missing.
  rows |= {title: _share(mask) for title, mask in missing.items() if mask.any()}
  for title, values in (
    ('format', [fact.format for fact in facts]),
    ('size', [fact.size for fact in facts]),
  ):
    common = collections.Counter(values).most_common(5)
    for value, number in common:
      rows[f'{title} {value}'] = f'{number / len(facts):.1%}'
  return rows


def _side_by_side(
  ratings: Sequence[Sequence[Sequence[float]]], index: int
) -> Float[np.ndarray, 'A N']:
  """Returns one score's ratings, one column per image, padded with NaN."""
  columns = [[row[index] for row in rows] for rows in ratings]
  return _padded(columns)


def _words_side_by_side(
  marks: Sequence[Sequence[Sequence[int]]],
) -> Float[np.ndarray, 'A N']:
  """Returns the marks, one column per word of an image, padded with NaN."""
  return _padded([column for rows in marks for column in zip(*rows, strict=True)])


def _padded(columns: Sequence[Sequence[float]]) -> Float[np.ndarray, 'A N']:
  found = np.full((max(map(len, columns), default=0), len(columns)), np.nan)
  for number, column in enumerate(columns):
    found[: len(column), number] = column
  return found


def _words(facts: Sequence[RecordStats]) -> list[int]:
  return [fact.words for fact in facts if not np.isnan(fact.aligned)]


def _share(mask: np.ndarray) -> str:
  return f'{mask.mean():.1%}'


def table(facts: Mapping[str, list[RecordStats]]) -> str:
  """Returns the table to print, with a column per split."""
  columns = {name: summarise(found) for name, found in facts.items()}
  titles = list(dict.fromkeys(title for rows in columns.values() for title in rows))
  # Keeps sizes at the end, even if only one split has them.
  titles.sort(key=lambda title: title.startswith('size '))
  width = max(map(len, titles)) + 2
  cells = max(
    max(len(text) for rows in columns.values() for text in rows.values()) + 3, 9
  )
  lines = [' ' * width + ''.join(f'{name:>{cells}}' for name in columns)]
  for title in titles:
    # Rows for a format, size or missing label that only other splits have are 0%.
    nothing = '0.0%' if title.startswith(SHARES) or title.endswith('missing') else '–'
    values = (rows.get(title, nothing) for rows in columns.values())
    lines.append(f'{title:{width}}' + ''.join(f'{text:>{cells}}' for text in values))
  return '\n'.join(lines)
