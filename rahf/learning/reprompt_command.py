"""python -m rahf.improve reprompt: its arguments, and what it prints."""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence

from rahf.errors import InputError
from rahf.fileio.claimed_folder import claimed
from rahf.fileio.validators import real, whole
from rahf.inference import open_scorer
from rahf.inference.image_generator import ImageGenerator
from rahf.inference.scorer import Scorer
from rahf.learning.choosing import check_flag, local_path
from rahf.learning.image_requests import ImageRequest, read_requests
from rahf.learning.item_results import Result, Row, Table, complete, gain_line
from rahf.learning.open_generator import open_generator
from rahf.learning.reprompt import WORDS, RepromptOptions, reprompt
from rahf.learning.score_expression import Expression, parse
from rahf.runtime import accelerator

SETTINGS = 'reprompt.json'
TABLE = Table(
  'reprompted.csv',
  ('file_name', 'prompt', 'seed', 'number', 'words', 'how', 'before', 'after'),
  {'original': 'before', 'best': 'after'},
)
_DESCRIPTION = """\
Draws images, and draws those again that miss words of their prompt, with emphasis on
these words. The most aligned is kept, and the first image is a candidate.

  python -m rahf.improve reprompt prompts.txt --generator=MUSE --model=RAHF --out=again

A Muse multiplies its attention to the words; with every generator, the words are also
asked for once more at the end of the prompt. The folder has the images, pairs of the
first and the best, and a table (reprompted.csv). The same command continues after a
stop.
"""


def _run(arguments: argparse.Namespace) -> int:
  """Draws, judges, and draws again."""
  for name, rule in (
    ('images_per_prompt', whole(1, 1_000_000)),
    ('seed', whole(0, 2**32 - 1)),
  ):
    check_flag(name, getattr(arguments, name), rule)
  for weight in arguments.weights:
    check_flag('weights', weight, real(1e-6, 1e6))
  options = RepromptOptions(tuple(arguments.weights), arguments.words)
  out = local_path(arguments.out, '--out').expanduser()
  folder = open_scorer.find(arguments.model)
  outputs = open_scorer.read_description(folder).outputs
  if outputs.keywords is None:
    raise InputError(f'--model={folder} does not judge words; give a RAHF')
  by = parse(arguments.by, outputs.scores)
  requests = read_requests(
    local_path(arguments.prompts, 'PROMPTS').expanduser(),
    arguments.images_per_prompt,
    arguments.seed,
    '',
  )
  accelerator.start(accelerator.choose())
  rows = len(options.weights) + 1
  scorer = open_scorer.load(folder, batch_size=rows, devices=None)
  generator = open_generator(arguments.generator, rows=rows)
  settings = {
    'requests': hashlib.sha256(json.dumps(requests).encode()).hexdigest(),
    'generator': generator.fingerprint,
    'sampling': dict(generator.settings),
    'model': os.fspath(folder),
    'by': by.text,
    **dataclasses.asdict(options),
  }
  with claimed(out, SETTINGS, settings, '--out'):
    found = _reprompt_all(requests, out, scorer, generator, by, options)
  missed = sum(bool(row['words']) for row in found)
  better = sum(bool(row['how']) for row in found)
  print(
    f'{len(found):,} images, {missed:,} miss words, {better:,} are better with '
    f'emphasis. {gain_line(found, by.text)}'
  )
  print(f'Written to {out}')
  return 0


def _reprompt_all(
  requests: Sequence[ImageRequest],
  out: pathlib.Path,
  scorer: Scorer,
  generator: ImageGenerator,
  by: Expression,
  options: RepromptOptions,
) -> list[Row]:
  def work(missing: set[int]) -> Iterator[tuple[int, Result]]:
    for number in sorted(missing):
      request = requests[number].request
      found = reprompt(request, scorer, generator, by, options)
      row = {
        'prompt': request.prompt,
        'seed': request.seed,
        'number': request.number,
        'words': ' '.join(found.words),
        'how': found.how,
        'before': found.before,
        'after': found.after,
      }
      yield number, Result(row, found.image, (found.original, found.image))

  return complete(out, len(requests), work, TABLE, 'Drawing')


def _add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.set_defaults(run=_run)
  add, defaults = parser.add_argument, RepromptOptions()
  add('prompts', metavar='PROMPTS', help='a text file or table, as for --mode=generate')
  add('--generator', required=True, metavar='DIR', help='a Muse, or one of diffusers')
  add('--model', required=True, metavar='DIR', help='a RAHF that judges words')
  add(
    '--by',
    default='alignment',
    metavar='EXPRESSION',
    help='what the best is chosen by (default: %(default)s)',
  )
  add('--out', required=True, metavar='FOLDER', help='a new folder, or one to continue')
  add('--images_per_prompt', type=int, default=1, help='(default: %(default)s)')
  add('--seed', type=int, default=0, help='of the noise (default: %(default)s)')
  add(
    '--weights',
    type=float,
    nargs='+',
    default=defaults.weights,
    metavar='WEIGHT',
    help='of the words in attention, one candidate each (default: 1.5 2 3)',
  )
  add(
    '--words',
    choices=WORDS,
    default=defaults.words,
    help='which words get emphasis: those marked as misaligned, or as controls as many '
    'at random, or all (default: %(default)s)',
  )


# The description, and the function that adds arguments.
PARSER = _DESCRIPTION, _add_arguments
