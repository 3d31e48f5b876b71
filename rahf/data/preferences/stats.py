"""Computes statistics of preference pairs without reading images."""

import collections
import dataclasses
import os
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tqdm

from rahf.data.preferences import pairs
from rahf.data.preferences.pairs import PairSplit


@dataclasses.dataclass
class Counts:
  """Counts of one split.

  Attributes:
    pairs, labelled, same: all pairs, those with a label, those with identical images.
    preferences: 1.0 (image 0), 0.5 (tie) and 0.0 (image 1) -> number of pairs.
    weight: sum of 1 / num_example_per_prompt.
    prompts, users: the distinct ones.
    models: model -> number of images.
    missing: column -> number of nulls; jpg_0 and jpg_1 are counted as `images`.
    doubtful: 'invalid' and 'contradicted' (see `pairs.Labels`) -> positions.
  """

  pairs: int = 0
  labelled: int = 0
  same: int = 0
  preferences: collections.Counter[float] = dataclasses.field(
    default_factory=collections.Counter
  )
  weight: float = 0.0
  prompts: set[str] = dataclasses.field(default_factory=set)
  users: set[int] = dataclasses.field(default_factory=set)
  models: collections.Counter[str] = dataclasses.field(
    default_factory=collections.Counter
  )
  missing: collections.Counter[str] = dataclasses.field(
    default_factory=collections.Counter
  )
  doubtful: dict[str, list[int]] = dataclasses.field(
    default_factory=lambda: {'invalid': [], 'contradicted': []}
  )

  def add(self, table: pa.Table) -> None:
    """Adds the next pairs; the table has the columns `pairs.COLUMNS`."""
    labels = pairs.parse_labels(table)
    for reason, positions in self.doubtful.items():
      positions += (np.flatnonzero(getattr(labels, reason)) + self.pairs).tolist()
    self.pairs += table.num_rows
    self.labelled += _total(table.column('has_label'))
    self.same += _total(pc.invert(table.column('are_different')))
    known = labels.preference[~np.isnan(labels.preference)]
    self.preferences.update(known.tolist())
    self.weight += pc.sum(
      pc.divide(1.0, _positive(table.column('num_example_per_prompt'))), min_count=0
    ).as_py()
    self.prompts.update(pc.unique(pc.drop_null(table.column('caption'))).to_pylist())
    self.users.update(pc.unique(pc.drop_null(table.column('user_id'))).to_pylist())
    for side in (0, 1):
      self.models.update(pc.drop_null(table.column(f'model_{side}')).to_pylist())
    for name in table.column_names:
      self.missing[name] += table.column(name).null_count


def collect(
  folder: os.PathLike | str, split: str | None = None
) -> tuple[dict[str, Counts], list[str]]:
  """Counts the pairs in a folder, with a progress bar.

  Args:
    folder: as for `pairs.open_pairs`.
    split: one split; None for all that exist.

  Returns:
    Counts by split, and a sentence for each difference from the release.

  Raises:
    InputError: as for `pairs.open_pairs`, or a file is damaged.
  """
  names = [split] if split else list(pairs.split_files(folder))
  counts, notes = {}, []
  for name in names:
    opened = pairs.open_pairs(folder, name)
    found = counts[name] = Counts()
    bar = tqdm.tqdm(
      opened.tables(), desc=name, total=len(opened.groups), unit='row group'
    )
    for table in bar:
      found.add(table)
    missing = opened.count_missing_images()
    if missing is None:
      notes.append(f'{name}: its files have no images, or no counts of null images')
    found.missing['images'] = missing or 0
    notes += _notes(opened, found)
  return counts, notes


def _notes(opened: PairSplit, counts: Counts) -> list[str]:
  notes = []
  released = pairs.SPLITS[opened.name]
  if counts.pairs != released:
    notes.append(
      f'{opened.name} has {counts.pairs:,} pairs, the release {released:,}; unless you '
      'use a subset on purpose, files are missing'
    )
  for reason, title in (
    ('invalid', 'labels other than 1, 0 or 0, 1 or .5, .5'),
    ('contradicted', 'labels that contradict best_image_uid'),
  ):
    if positions := counts.doubtful[reason]:
      notes.append(
        f'{opened.name} has {len(positions):,} pairs without a preference, because of '
        f'{title}; first: {opened.where(positions[0])}'
      )
  return notes


def table(counts: Mapping[str, Counts]) -> str:
  """Returns the counts as a table with a column per split."""
  columns = {name: _rows(found) for name, found in counts.items()}
  titles = list(dict.fromkeys(title for rows in columns.values() for title in rows))
  width = max(map(len, titles)) + 2
  lines = [' ' * width + ''.join(f'{name:>19}' for name in columns)]
  for title in titles:
    cells = (rows.get(title, '–') for rows in columns.values())
    lines.append(f'{title:{width}}' + ''.join(f'{cell:>19}' for cell in cells))
  return '\n'.join(lines)


def _rows(counts: Counts) -> dict[str, str]:
  known = sum(counts.preferences.values())
  rows = {
    'pairs': f'{counts.pairs:,}',
    'with a label': f'{counts.labelled:,}',
    'with a preference': f'{known:,}',
  }
  for preference, title in ((1.0, 'image 0'), (0.5, 'tie'), (0.0, 'image 1')):
    number = counts.preferences[preference]
    rows[f'  {title}'] = f'{number:,} ({number / known:.1%})' if known else '–'
  rows |= {
    'with identical images': f'{counts.same:,}',
    'distinct prompts': f'{len(counts.prompts):,}',
    # In a complete split, the terms of each prompt add up to 1.
    'sum of 1 / num_example_per_prompt': f'{counts.weight:,.1f}',
    'users': f'{len(counts.users):,}',
    'models': f'{len(counts.models):,}',
  }
  for model, number in counts.models.most_common(5):
    rows[f'  images by {model}'] = f'{number / counts.models.total():.1%}'
  for name, number in counts.missing.items():
    if number:
      rows[f'missing {name}'] = f'{number:,}'
  return rows


def _positive(column: pa.ChunkedArray) -> pa.ChunkedArray:
  """Replaces numbers that are not positive by null."""
  return pc.if_else(pc.greater(column, 0), column, None)


def _total(column: pa.ChunkedArray) -> int:
  return pc.sum(column, min_count=0).as_py()
