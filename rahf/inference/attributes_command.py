"""Answers questions about images: python -m rahf.data attributes.

It stands here, and not in `rahf.data`, since a model may answer.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from rahf.data.attributes import images as images_lib
from rahf.data.attributes import questions as questions_lib
from rahf.data.attributes import report, table
from rahf.data.attributes.table import Attributes
from rahf.data.sources.source import open_source
from rahf.errors import InputError
from rahf.fileio.paths import new

# Unreadable images that are named.
_NAMED = 5


def answer(arguments: argparse.Namespace) -> int:
  """Writes the answers to --out, and prints them; returns the exit status."""
  prepared = images_lib.prepared_directory(arguments.images)
  if not (arguments.out or prepared):
    raise InputError(
      f'--out is missing; {arguments.images} is not a prepared data set, so give the '
      'table to write, such as --out=attributes.csv'
    )
  out = new(arguments.out or prepared / table.FILE, '--out')
  if (arguments.clip is None) == (arguments.table is None):
    raise InputError('give either --clip or --table')
  for flag in ('questions', 'calibrate', 'temperature'):
    if arguments.table and getattr(arguments, flag):
      raise InputError(f'--{flag} is for --clip; --table has the answers')
  images = str(prepared or arguments.images)
  source = open_source(images, images_only=True, flag='IMAGES')
  positions = {uid: place for place, uid, _ in reversed([*images_lib.names(source)])}
  if arguments.table:
    uids = [*reversed(positions)]
    found = table.read(arguments.table).of(uids, str(arguments.table))
  else:
    found = _ask(images, {*positions.values()}, arguments)
  table.write(out, found)
  print(f'\n{report.answers_table(found)}\n\nWritten to {out}')
  return 0


def _ask(images: str, positions: set[int], arguments: argparse.Namespace) -> Attributes:
  """Returns the answers of a CLIP for the images at these positions of the source."""
  # Imported late: reading a table and sampling need no model.
  from rahf.evaluation import image_features
  from rahf.inference import open_scorer
  from rahf.inference.clip_model import ClipModel
  from rahf.inference.zero_shot import ZeroShot, check_known

  questions = questions_lib.read_questions(arguments.questions or questions_lib.DEFAULT)
  temperatures = _temperatures(arguments.temperature, questions)
  known = None
  if arguments.calibrate:
    known = table.read(arguments.calibrate)
    check_known(questions, known, str(arguments.calibrate))
  model = open_scorer.load(arguments.clip)
  if not isinstance(model, ClipModel):
    raise InputError(f'--clip {arguments.clip} is a RAHF, not a CLIP')
  asked = ZeroShot(model, questions)
  found = image_features.extract(
    asked.extractor(), images, wanted=positions, flag='IMAGES'
  )
  for one in found.unreadable[:_NAMED]:
    print(f'Left out: {one.uid}: {one.reason}')
  if len(found.unreadable) > _NAMED:
    print(f'Left out: {len(found.unreadable) - _NAMED:,} more')
  uids = np.array(found.uids)
  similarities = asked.similarities(found.features)
  if known is not None:
    shared = np.isin(uids, known.uids)
    if not shared.any():
      raise InputError(
        f'--calibrate {arguments.calibrate} has none of the images, the first '
        f'{found.uids[0]!r:.80}; it has {known.uids[0]!r:.80}'
      )
    calibrations = asked.calibrate(
      {name: values[shared] for name, values in similarities.items()},
      known.of(uids[shared].tolist(), str(arguments.calibrate)),
    )
    for name, one in calibrations.items():
      temperatures[name] = one.temperature
      print(f'{name}: {one.summary}')
  return asked.answer(found.uids, similarities, temperatures)


def _temperatures(
  given: Sequence[str], questions: questions_lib.Questions
) -> dict[str, float]:
  found = {}
  for text in given:
    name, _, number = text.partition('=')
    try:
      found[name] = float(number)
    except ValueError:
      found[name] = 0.0
    if name not in questions or not 0 < found[name] < np.inf:
      raise InputError(
        f'--temperature {text!r:.80}: give NAME=NUMBER, a number above 0, for one of '
        f'{", ".join(questions)}'
      )
  return found
