"""Writes scores.csv: every image of every generator, with its scores or its error.

Data format of each row:
  generator, uid   text    names; the uid is the path in the folder
  prompt           text    empty if there is none
  <scorer>/<name>  number  one column for each measure, empty if the image is left out
  left_out         text    why the image is not compared; empty if it is
"""

import csv
import os
from collections.abc import Collection, Iterator, Sequence
from typing import Self

from rahf.evaluation.generator_judgement import Measure
from rahf.evaluation.generator_tally import ScoredImage

FIRST, LAST = ('generator', 'uid', 'prompt'), 'left_out'
_OTHERS_LACK = 'other generators lack its prompt'


class ScoreTable:
  """The file while it is written; a context manager that closes it."""

  def __init__(self, path: os.PathLike | str, measures: Sequence[Measure]):
    self._file = _open(path, 'w')
    self._writer = csv.writer(self._file, lineterminator='\n')
    self._writer.writerow([*FIRST, *(one.name for one in measures), LAST])
    self._empty = [''] * len(measures)

  def add(self, generator: str, image: ScoredImage) -> None:
    """Writes the row of an image."""
    values = self._empty if image.left_out else map(repr, image.values)
    reason = f'{image.left_out}: {image.reason}' if image.left_out else ''
    self._writer.writerow([generator, image.uid, image.prompt, *values, reason])

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *error) -> None:
    self._file.close()


def finish(
  partial: os.PathLike | str, path: os.PathLike | str, shared: Collection[str]
) -> None:
  """Copies a table and marks the images whose prompts are not shared.

  Which prompts those are is only known after the last image. Row by row, so memory does
  not grow with them.

  Args:
    partial: the written table; it is removed.
    shared: prompts that were compared.
  """
  # As they were written, where characters that UTF-8 cannot encode are replaced.
  shared = {prompt.encode('utf-8', 'replace').decode() for prompt in shared}
  with _open(partial, 'r') as source, _open(path, 'w') as target:
    rows, writer = csv.reader(source), csv.writer(target, lineterminator='\n')
    writer.writerow(next(rows))
    writer.writerows(_marked(rows, shared))
  os.unlink(partial)


def _marked(rows: Iterator[list[str]], shared: Collection[str]) -> Iterator[list[str]]:
  for row in rows:
    if not row[-1] and row[FIRST.index('prompt')] not in shared:
      row[-1] = _OTHERS_LACK
    yield row


def _open(path: os.PathLike | str, mode: str):
  return open(path, mode, encoding='utf-8', errors='replace', newline='')
