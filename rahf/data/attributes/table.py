"""Attributes of images as a table beside their data.

Data format, in `attributes.csv` of a prepared data set or any table of these columns:
  uid                  of the image, or its file_name; with or without an ending such as
                       .png, if that is unique
  QUESTION             the answer; empty if it is unknown
  QUESTION_confidence  its probability, in [0, 1]; without this column, 1
Columns of more than MAX_ANSWERS different values are ignored.
"""

import collections
import csv
import io
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float

from rahf.data.attributes.questions import CONFIDENCE, can_be_question
from rahf.data.images import files
from rahf.errors import InputError
from rahf.fileio import atomic_write, table_rows
from rahf.fileio.local_file import local_file
from rahf.fileio.table_files import UIDS

FILE = 'attributes.csv'
FILE_NAME = 'file_name'
UNKNOWN = ''
MAX_ANSWERS = 50


class Attributes(NamedTuple):
  """Answers to questions about N images.

  Attributes:
    uids: of the images.
    answers: by question, UNKNOWN where there is none.
    confidences: by question, the probability of each answer, in [0, 1].
  """

  uids: tuple[str, ...]
  answers: Mapping[str, tuple[str, ...]]
  confidences: Mapping[str, Float[np.ndarray, 'N']]

  def of(self, uids: Sequence[str], where: str) -> 'Attributes':
    """Returns the attributes of these images, in their order.

    Args:
      where: the attributes come from, for errors.

    Raises:
      InputError: an image has none.
    """
    rows = self.rows_of(uids)
    missing = [uid for uid in uids if uid not in rows]
    if missing:
      others = '' if len(missing) < len(uids) else f'; it has {self.uids[0]!r:.80}'
      raise InputError(
        f'{where} has no attributes of {len(missing):,} of {len(uids):,} images, the '
        f'first {missing[0]!r:.80}{others}; it may be of other images. Add their rows, '
        'with empty values where nothing is known'
      )
    return self.take([rows[uid] for uid in uids])._replace(uids=tuple(uids))

  def rows_of(self, uids: Sequence[str]) -> dict[str, int]:
    """Returns the row of each image that has one."""
    rows = {uid: row for row, uid in enumerate(self.uids)}
    # Images of a folder are named by their files, annotations without the ending.
    there, wanted = (collections.Counter(map(_bare, of)) for of in (self.uids, uids))
    bare = {_bare(uid): row for uid, row in rows.items() if there[_bare(uid)] == 1}
    found = {}
    for uid in uids:
      row = rows.get(uid)
      if row is None and wanted[_bare(uid)] == 1:
        row = bare.get(_bare(uid))
      if row is not None:
        found[uid] = row
    return found

  def take(self, rows: Sequence[int]) -> 'Attributes':
    """Returns the attributes of some rows, in their order."""
    return Attributes(
      tuple(self.uids[row] for row in rows),
      {name: tuple(column[r] for r in rows) for name, column in self.answers.items()},
      {name: column[list(rows)] for name, column in self.confidences.items()},
    )


def read(path: os.PathLike | str) -> Attributes:
  """Reads a table: CSV, TSV, JSONL or parquet.

  Raises:
    InputError: it cannot be read, has no uid or no attributes, has an image twice, or
      a confidence is not in [0, 1].
  """
  file = local_file(epath.Path(path))  # A copy of one in a bucket lives as long.
  path = pathlib.Path(file.path)
  columns = table_rows.columns(path)
  uid = next((name for name in (*UIDS, FILE_NAME) if name in columns), None)
  names = [name for name in columns if can_be_question(name)]
  if uid is None or not names:
    raise InputError(
      f'{path} needs the column {UIDS[0]} and one column or more of attributes; it has '
      f'{", ".join(columns) or "nothing":.300}'
    )
  sure = [name + CONFIDENCE for name in names]
  uids: dict[str, None] = {}
  answers = {name: [] for name in names}
  confidences = {name: [] for name in names}
  for place, (key, *values) in table_rows.rows(path, [uid, *names], sure):
    where = table_rows.where(path, place)
    if str(key) in uids:
      raise InputError(f'{where}: the image {str(key)!r:.80} stands twice')
    uids[str(key)] = None
    for number, name in enumerate(names):
      answers[name].append(_answer(values[number]))
      confidences[name].append(
        _confidence(values[len(names) + number], f'{where}, {name}{CONFIDENCE}')
      )
  if not uids:
    raise InputError(f'{path} has no rows')
  # Such as seeds and sizes, of which no share can be had.
  names = [name for name in names if len({*answers[name]}) <= MAX_ANSWERS]
  if not names:
    raise InputError(
      f'{path}: every column has more than {MAX_ANSWERS} different values; '
      'attributes have few'
    )
  return Attributes(
    tuple(uids),
    {name: tuple(answers[name]) for name in names},
    {name: np.array(confidences[name], float) for name in names},
  )


def _bare(uid: str) -> str:
  """Returns a uid without the ending of an image, if it has one."""
  path = pathlib.PurePath(uid)
  return uid.removesuffix(path.suffix) if files.is_image(path) else uid


def _answer(value: Any) -> str:
  """Returns an answer as text; a table may have true and false, or numbers."""
  if value is None or (isinstance(value, float) and math.isnan(value)):
    return UNKNOWN
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  return str(value).strip()


def _confidence(value: Any, where: str) -> float:
  if value in (None, ''):
    return 1.0
  try:
    number = float(value)
  except (TypeError, ValueError):
    number = math.nan
  if not 0 <= number <= 1:
    raise InputError(f'{where} is {value!r:.80}, not a number from 0 to 1')
  return number


def to_csv(attributes: Attributes) -> str:
  """Returns the table as CSV."""
  file = io.StringIO()
  writer = csv.writer(file, lineterminator='\n')
  names = [*attributes.answers]
  writer.writerow(('uid', *(n + end for n in names for end in ('', CONFIDENCE))))
  for row, uid in enumerate(attributes.uids):
    cells = []
    for name in names:
      answer = attributes.answers[name][row]
      sure = attributes.confidences[name][row]
      cells += [answer, f'{sure:.4f}' if answer else '']
    writer.writerow((uid, *cells))
  return file.getvalue()


def write(path: pathlib.Path, attributes: Attributes) -> None:
  """Writes the table as CSV."""
  # Names of files can have characters that UTF-8 cannot encode.
  atomic_write.write(path, to_csv(attributes).encode('utf-8', 'replace').decode())


def find(directory: os.PathLike | str) -> Attributes | None:
  """Returns the attributes beside a prepared data set; None if it has none.

  Raises:
    InputError: the table is damaged.
  """
  path = epath.Path(directory) / FILE
  return read(path) if path.exists() else None
