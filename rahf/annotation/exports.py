"""Writes answers in the formats that other commands read."""

import contextlib
import csv
import datetime
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import sqlalchemy as sa

from rahf.annotation import image_files
from rahf.annotation.project import Project
from rahf.annotation.rich import LISTS
from rahf.annotation.settings import COMPARE, PREFER, RICH
from rahf.annotation.tables import ANNOTATORS, ANSWERS, DONE, ITEMS, TASK
from rahf.fileio import atomic_write, paths, staged_folder, table_files

PAIRS_FILE = 'train-00000-of-00001.parquet'
# Pairs in memory at once, with their images.
_ROWS = 64
_LABELS = {'left': (1.0, 0.0), 'right': (0.0, 1.0), 'tie': (0.5, 0.5)}


class Exported(NamedTuple):
  """An answer with what it is about."""

  id: int
  key: str
  item: Any
  annotator: int
  name: str
  value: dict[str, Any]
  seconds: float
  created: float


def answers(project: Project) -> Iterator[Exported]:
  """Yields the complete answers to tasks: no skips, repeats or gold questions."""
  query = (
    sa.select(ANSWERS, ANNOTATORS.c.name, *(c.label(f'of_{c.name}') for c in ITEMS.c))
    .join(ITEMS, ITEMS.c.id == ANSWERS.c.item)
    .join(ANNOTATORS, ANNOTATORS.c.id == ANSWERS.c.annotator)
    .where(ANSWERS.c.status == DONE, ANSWERS.c.purpose == TASK)
    .order_by(ITEMS.c.position, ITEMS.c.id, ANSWERS.c.id)
  )
  with project.store.read() as connection:
    for row in connection.execute(query):
      item = {c.name: row._mapping[f'of_{c.name}'] for c in ITEMS.c}
      person = row.annotator, row.name
      answer = row.value, row.seconds, row.created
      yield Exported(row.id, row.key, item, *person, *answer)


@contextlib.contextmanager
def new_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a path to write to, which becomes the new file if the block succeeds.

  Raises:
    InputError: the file exists, or its folder does not.
  """
  with atomic_write.temp_then_rename(paths.new(path, '--out')) as partial:
    yield pathlib.Path(partial)


@contextlib.contextmanager
def new_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields an empty folder, which becomes the new one if the block succeeds.

  Raises:
    InputError: the folder exists, or the one that it lies in does not.
  """
  with staged_folder.staged(paths.new(path, '--out')) as partial:
    partial.mkdir()
    yield pathlib.Path(partial)


def write_raw(project: Project, path: pathlib.Path) -> int:
  """Writes raw annotations (`rahf.data.labels.raw`); returns their number."""
  count = 0
  with new_file(path) as partial, partial.open('w') as file:
    for one in answers(project):
      row = {'uid': one.item['uid'], 'annotator': one.name}
      row |= {name: one.value[name] for name in LISTS}
      file.write(json.dumps({**row, 'scores': one.value['scores']}) + '\n')
      count += 1
  return count


def write_study(project: Project, path: pathlib.Path) -> int:
  """Writes what `python -m rahf.improve study tally` reads; returns the rows."""
  rows = [(one.item['uid'], one.value['choice']) for one in answers(project)]
  with (
    new_file(path) as partial,
    partial.open('w', encoding='utf-8', newline='') as file,
  ):
    writer = csv.writer(file, lineterminator='\n')
    writer.writerows([('question', 'answer'), *rows])
  return len(rows)


def write_pairs(project: Project, folder: pathlib.Path) -> int:
  """Writes pairs in Pick-a-Pic's columns (`rahf.data.preferences.pairs`).

  Args:
    folder: a new one, which gets PAIRS_FILE.

  Returns:
    The number of pairs.

  Raises:
    InputError: an image has vanished or changed; then no folder is written.
  """
  table_files.check_pyarrow()
  import pyarrow as pa
  import pyarrow.parquet as pq

  from rahf.data.preferences import pairs

  found = list(answers(project))
  per_prompt: dict[str, int] = {}
  for one in found:
    prompt = one.item['prompt']
    per_prompt[prompt] = per_prompt.get(prompt, 0) + 1
  types = pa.schema([*pairs.IMAGES, *pairs.COLUMNS, ('created_at', pa.timestamp('ms'))])
  with (
    new_folder(folder) as made,
    atomic_write.temp_then_rename(made / PAIRS_FILE) as partial,
    pq.ParquetWriter(partial, types) as writer,
  ):
    for start in range(0, len(found), _ROWS):
      rows = [_pair(project, one, per_prompt) for one in found[start : start + _ROWS]]
      writer.write_table(pa.Table.from_pylist(rows, types))
  return len(found)


def _pair(project: Project, one: Exported, per_prompt: dict[str, int]) -> dict:
  images = [one.item['images'][one.value[side]] for side in ('left', 'right')]
  labels, uids = _LABELS[one.value['choice']], [image['uid'] for image in images]
  row = {
    'ranking_id': one.id,
    'user_id': one.annotator,
    'caption': one.item['prompt'],
    'has_label': True,
    # As in the release, where a tie has no best image.
    'best_image_uid': uids[labels.index(1.0)] if 1.0 in labels else 'tie',
    'are_different': uids[0] != uids[1],
    'num_example_per_prompt': per_prompt[one.item['prompt']],
    'created_at': datetime.datetime.fromtimestamp(one.created, datetime.UTC).replace(
      tzinfo=None
    ),
  }
  for side, image in enumerate(images):
    row |= {
      f'jpg_{side}': image_files.read_unchanged(project, image),
      f'image_{side}_uid': image['uid'],
      f'model_{side}': image['model'],
      f'label_{side}': labels[side],
    }
  return row


# By the task: what `python -m rahf.annotate export` writes unless it is told otherwise.
WRITERS: dict[str, Callable[[Project, pathlib.Path], int]] = {
  RICH: write_raw,
  COMPARE: write_study,
  PREFER: write_pairs,
}
