"""The files of a blind study (`study.py`).

STUDY/images/…png    the images, under random names, without metadata
STUDY/questions.csv  question, rater, prompt, left, right: what raters see
STUDY-key.csv        which images each question shows; keep it away from the raters
answers.csv          question, answer: what raters return
"""

import csv
import hashlib
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tqdm import tqdm

from rahf.data.images import codec, inputs
from rahf.data.sources.source import Source
from rahf.errors import InputError
from rahf.fileio import atomic_write, table_rows
from rahf.learning import study
from rahf.learning.study import ANSWERS, IDENTICAL, KINDS, Answered, Question

QUESTIONS, IMAGES = 'questions.csv', 'images'
KEY_COLUMNS = (
  'question',
  'rater',
  'kind',
  'pair',
  'swapped',
  'prompt',
  'first',
  'second',
)


class Pair(NamedTuple):
  """Two images of one prompt, by their positions in their sources."""

  prompt: str
  first: int
  second: int


def make_pairs(first: Source, second: Source, names: tuple[str, str]) -> list[Pair]:
  """Pairs the images of two generators: the k-th of a prompt with the k-th.

  Raises:
    InputError: a prompt has different numbers of images, or an image has none.
  """
  found = [_by_prompt(first, names[0]), _by_prompt(second, names[1])]
  for prompt in {**found[0], **found[1]}:
    numbers = [len(one.get(prompt, [])) for one in found]
    if numbers[0] != numbers[1]:
      raise InputError(
        f'{names[0]} has {numbers[0]} images of {prompt!r:.100}, but {names[1]} has '
        f'{numbers[1]}; a study needs equally many of each prompt'
      )
  return [
    Pair(prompt, *pair)
    for prompt, positions in found[0].items()
    for pair in zip(positions, found[1][prompt], strict=True)
  ]


def _by_prompt(source: Source, name: str) -> dict[str, list[int]]:
  found: dict[str, list[int]] = {}
  for position, load in source.read(lambda _: True):
    item = load()
    if item.error or not item.prompt:
      reason = item.error or 'it has no prompt'
      raise InputError(f'{name}, {item.uid or position}: {reason}')
    found.setdefault(item.prompt, []).append(position)
  return found


def write_study(
  folder: pathlib.Path,
  key: pathlib.Path,
  sources: tuple[Source, Source],
  names: tuple[str, str],
  pairs: Sequence[Pair],
  questions: Sequence[Question],
  seed: int,
) -> None:
  """Writes images, questions and the key."""
  (folder / IMAGES).mkdir(parents=True)
  paths = [
    _copy(folder, source, side, [pair[side + 1] for pair in pairs], seed)
    for side, source in enumerate(sources)
  ]
  asked, keys = [], []
  for number, one in enumerate(questions, 1):
    pair = pairs[one.pair]
    shown = paths[0][pair.first], paths[1][pair.second]
    if one.kind == IDENTICAL:
      shown = shown[:1] * 2
    left, right = shown[::-1] if one.swapped else shown
    asked.append((number, one.rater, pair.prompt, left, right))
    swapped = 'yes' if one.swapped else 'no'
    keys.append((number, one.rater, one.kind, one.pair, swapped, pair.prompt, *names))
  header = ('question', 'rater', 'prompt', 'left', 'right')
  _write_table(folder / QUESTIONS, header, asked)
  _write_table(key, KEY_COLUMNS, keys)


def _copy(
  folder: pathlib.Path, source: Source, side: int, positions: Sequence[int], seed: int
) -> dict[int, str]:
  """Writes pixels under names that say nothing; returns paths by position."""
  paths = {}
  rows = source.read(set(positions).__contains__)
  for position, load in tqdm(rows, 'Copying', len(positions), disable=None):
    digest = hashlib.sha256(f'{seed} {side} {position}'.encode()).hexdigest()
    paths[position] = f'{IMAGES}/{digest[:16]}.png'
    data = codec.encode_png(inputs.read_pixels(load().image))
    (folder / paths[position]).write_bytes(data)
  return paths


def _write_table(path: pathlib.Path, header: Sequence, rows: Iterable) -> None:
  with (
    atomic_write.temp_then_rename(path) as partial,
    open(partial, 'w', encoding='utf-8', newline='') as file,
  ):
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(header)
    writer.writerows(rows)


def read_answers(
  key: pathlib.Path, answers: pathlib.Path
) -> tuple[list[Answered], tuple[str, str], int]:
  """Returns answers with what they are about, the generators' names, and the number of
  questions.

  Raises:
    InputError: a file or a row of it cannot be used; or a question is answered twice.
  """
  known, names = _read_key(key)
  found: dict[int, Answered] = {}
  for line, (number, answer) in table_rows.rows(answers, ('question', 'answer')):
    where = table_rows.where(answers, line)
    text = str(number).strip()
    if not text.isdecimal() or int(text) not in known:
      raise InputError(f'{where}: question {text!r:.40} is not in {key}')
    if str(answer).strip() not in ANSWERS:
      raise InputError(
        f'{where}: the answer is {str(answer)!r:.40}; give one of {", ".join(ANSWERS)}'
      )
    if int(text) in found:
      raise InputError(f'{where}: question {text} has an answer before; keep one')
    question, prompt = known[int(text)]
    value = study.value_of(question, str(answer).strip())
    found[int(text)] = Answered(question, prompt, value)
  if not any(one.question.kind == study.PAIR for one in found.values()):
    raise InputError(f'{answers} has no answer to a pair')
  return [*found.values()], names, len(known)


def _read_key(
  key: pathlib.Path,
) -> tuple[Mapping[int, tuple[Question, str]], tuple[str, str]]:
  known, names = {}, ('', '')
  for line, row in table_rows.rows(key, KEY_COLUMNS):
    number, rater, kind, pair, swapped, prompt, *found = map(str, row)
    names = found[0], found[1]
    numbers = (number, rater, pair)
    if kind not in KINDS or not all(text.isdecimal() for text in numbers):
      raise InputError(f'{table_rows.where(key, line)} is damaged; restore the file')
    question = Question(int(rater), kind, int(pair), swapped == 'yes')
    known[int(number)] = question, prompt
  return known, names
