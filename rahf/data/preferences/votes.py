"""Reads votes between models: tables of votes, or Pick-a-Pic's pairs by model.

Data format of a table (CSV, TSV, JSONL or parquet), by column:
  left, right  str  the models whose images were compared
  winner       str  left, right or tie
Other columns are ignored. A table of scores has the columns model (str) and value
(number; higher is better); a ranking that `python -m rahf.rank` wrote is one.
"""

import array
import collections
import functools
import math
import pathlib
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from rahf.errors import InputError
from rahf.fileio import table_files, table_rows, text_files
from rahf.fileio.table_files import shown
from rahf.metrics.ranking import Votes

VOTE_COLUMNS = ('left', 'right', 'winner')
SCORE_COLUMNS = ('model', 'value')
# Scores of the left model.
WINNERS = {'left': 1.0, 'tie': 0.5, 'right': 0.0}
# The split of a folder that is ranked by default: the first of these that it has.
DEFAULT_SPLITS = ('test', 'test_unique', 'validation', 'validation_unique', 'train')
_UNKNOWN = 'with models that are not in --models'
# Columns of Pick-a-Pic that preferences depend on.
_PAIR_COLUMNS = (
  *('model_0', 'model_1', 'label_0', 'label_1', 'has_label', 'best_image_uid'),
  *('image_0_uid', 'image_1_uid'),
)


class VoteTable(NamedTuple):
  """Votes, and what was not counted.

  Attributes:
    models: names, in the order of their first votes.
    votes: between different models, at least one.
    notes: which split they are of, if none was asked for; and a sentence for each kind
      of vote that was left out, with their number and the place of the first.
  """

  models: tuple[str, ...]
  votes: Votes
  notes: tuple[str, ...]


def read(
  path: pathlib.Path, *, split: str = '', only: Sequence[str] | None = None
) -> VoteTable:
  """Reads a table of votes, or a split of a folder of Pick-a-Pic's pairs.

  Votes of a model against itself say nothing and are left out; so are pairs without a
  preference or a model's name, and votes with models that are not in `only`.

  Args:
    split: of the folder, see `pairs.SPLITS`; '' for the first of DEFAULT_SPLITS.
    only: the models to rank, each once; None for all.

  Raises:
    InputError: the file or folder is missing, damaged or of another kind; a row is not
      a vote; there are no votes, or none of a model in `only`.
  """
  if path.is_dir():
    return _read_pairs(path, split, only)
  tally = _Tally(only, functools.partial(table_rows.where, path))
  for place, (left, right, winner) in table_rows.rows(path, VOTE_COLUMNS):
    score = WINNERS.get(winner) if isinstance(winner, str) else None
    if score is None:
      raise InputError(
        f'{table_rows.where(path, place)}: winner is {shown(winner)}; write left, '
        'right or tie'
      )
    for side, model in (('left', left), ('right', right)):
      if not isinstance(model, str) or model not in tally.numbers:
        check_name(model, f'{table_rows.where(path, place)}: {side}')
    tally.add(left, right, score, place)
  return tally.table(path)


def read_scores(path: pathlib.Path) -> dict[str, float]:
  """Reads a table of scores; strengths of a Bradley–Terry ranking become their logs.

  Raises:
    InputError: as for `read`; or a model has two values, or one that is not a number.
  """
  found: dict[str, float] = {}
  for place, (model, value, method) in table_rows.rows(
    path, SCORE_COLUMNS, ('method',)
  ):
    where = table_rows.where(path, place)
    check_name(model, f'{where}: model')
    try:
      number = float(value)
    except (TypeError, ValueError, OverflowError):
      number = math.nan
    if not math.isfinite(number):
      raise InputError(f'{where}: value is {shown(value)}, which is not a score')
    if method == 'bradley_terry':
      if number <= 0:
        raise InputError(
          f'{where}: value is {shown(value)}, but a strength of Bradley–Terry is above '
          '0, as its logarithm is compared'
        )
      number = math.log(number)
    if model in found:
      raise InputError(f'{where}: {model} has a value already; keep one for each model')
    found[model] = number
  if not found:
    raise InputError(
      f'{path} has no rows; give a table with {" and ".join(SCORE_COLUMNS)}'
    )
  return found


def holds_votes(path: pathlib.Path) -> bool:
  """Returns whether a file or folder has votes; False for a table of scores.

  Raises:
    InputError: it has neither, or cannot be read.
  """
  if path.is_dir():
    return True
  names = table_rows.columns(path)
  if not names or set(VOTE_COLUMNS) <= set(names):
    return True
  if set(SCORE_COLUMNS) <= set(names):
    return False
  raise InputError(
    f'{path}: needs {", ".join(VOTE_COLUMNS)} for votes, or '
    f'{" and ".join(SCORE_COLUMNS)} for scores; has {", ".join(map(str, names)):.300}'
  )


class _Tally:
  """Votes as they are read, in a few bytes each."""

  def __init__(self, only: Sequence[str] | None, where: Callable[[Any], str]):
    """Starts with no votes.

    Args:
      only: the models to rank; None for all.
      where: names a vote, whose place `add` gets, for notes.
    """
    self._where = where
    self.numbers = {model: number for number, model in enumerate(only or ())}
    self._only = None if only is None else frozenset(only)
    self._sides = array.array('i')
    self._scores = array.array('d')
    self._left_out: dict[str, str] = {}  # Why -> place of the first.
    self._counts: collections.Counter[str] = collections.Counter()
    self._unknown: collections.Counter[str] = collections.Counter()

  def add(self, left: str, right: str, score: float, place: Any) -> None:
    """Adds a vote, or counts it with those that are left out.

    Args:
      score: of the left model; NaN for none.
    """
    unknown = self._only is not None and {left, right} - self._only
    if not (left and right):
      reason = "without a model's name"
    elif unknown:
      reason = _UNKNOWN
      self._unknown.update(unknown)
    elif left == right:
      reason = 'of a model against itself'
    elif score != score:
      reason = 'without a preference'
    else:
      for model in (left, right):
        self._sides.append(self.numbers.setdefault(model, len(self.numbers)))
      self._scores.append(score)
      return
    self._counts[reason] += 1
    if reason not in self._left_out:
      self._left_out[reason] = self._where(place)

  def table(self, path: pathlib.Path) -> VoteTable:
    """Returns all votes.

    Raises:
      InputError: there are none, or none of a model that should be ranked.
    """
    notes = []
    for reason, first in self._left_out.items():
      number = self._counts[reason]
      note = f'left out {number:,} vote{"s"[: number != 1]} {reason}; first: {first}'
      if reason == _UNKNOWN:
        named = (f'{model} ({count:,})' for model, count in self._unknown.most_common())
        note += f'; by model: {", ".join(named)}'
      notes.append(note)
    if not self._scores:
      raise InputError(
        f'{path}: no votes between two models' + ''.join(f'; {note}' for note in notes)
      )
    left, right = np.array(self._sides, np.int64).reshape(-1, 2).T
    votes = Votes(left, right, np.array(self._scores))
    models = tuple(self.numbers)
    voted = np.bincount(self._sides, minlength=len(models))
    if silent := [
      model for model, count in zip(models, voted, strict=True) if not count
    ]:
      raise InputError(
        f'{path}: no votes on {", ".join(silent)} of --models; correct the name, or '
        'leave it out'
      )
    return VoteTable(models, votes, tuple(notes))


def _read_pairs(
  folder: pathlib.Path, split: str, only: Sequence[str] | None
) -> VoteTable:
  table_files.check_pyarrow()
  from rahf.data.preferences import pairs

  notes = ()
  if not split:
    there = pairs.split_files(folder)
    split = next(name for name in DEFAULT_SPLITS if name in there)
    notes = (f'the votes are those of {split}',)
  opened = pairs.open_pairs(folder, split)
  tally, position = _Tally(only, opened.where), 0
  bar = tqdm(
    opened.tables(_PAIR_COLUMNS), split, len(opened.groups), leave=False, disable=None
  )
  for table in bar:
    models = (table.column(f'model_{side}').to_pylist() for side in (0, 1))
    scores = pairs.parse_labels(table).preference.tolist()
    for left, right, score in zip(*models, scores, strict=True):
      for model in (left, right):
        if model and model not in tally.numbers:
          check_name(model, f'{opened.where(position)}: model')
      tally.add(left or '', right or '', score, position)
      position += 1
  found = tally.table(folder)
  return found._replace(notes=(*notes, *found.notes))


def check_name(model: Any, where: str) -> None:
  """Raises InputError, starting with `where`, if a model's name cannot be used."""
  if not isinstance(model, str):
    raise InputError(f'{where} is {shown(model)}, not text')
  problem = ''
  if not model.strip():
    problem = 'is empty'
  elif model != model.strip():
    problem = 'starts or ends with white space; remove it'
  elif any(unicodedata.category(sign) == 'Cc' for sign in model):
    problem = 'has control characters; remove them'
  try:
    text_files.check(model)
    model.encode()
  except ValueError as error:
    problem = str(error)
  if problem:
    raise InputError(f'{where} {shown(model)}: {problem}')
