"""python -m rahf.improve reprompt: its arguments, and what it prints."""

import argparse
import dataclasses
from collections.abc import Iterator

from rahf.errors import InputError
from rahf.fileio.claimed_folder import claimed
from rahf.fileio.validators import positive
from rahf.inference import open_scorer
from rahf.inference.image_generator import ImageGenerator
from rahf.inference.scorer import Scorer
from rahf.learning.choosing import check_flag
from rahf.learning.drawing_job import DrawingJob, add_arguments, read_job
from rahf.learning.image_requests import warn_of_long_prompts
from rahf.learning.item_results import Result, Row, Table, complete, gain_line
from rahf.learning.open_generator import open_generator
from rahf.learning.reprompt import WORDS, RepromptOptions, reprompt
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
  for weight in arguments.weights:
    check_flag('weights', weight, positive(1e6))
  options = RepromptOptions(tuple(arguments.weights), arguments.words)
  job = read_job(arguments)
  if job.outputs.keywords is None:
    raise InputError(f'--model={job.model} does not judge words; give a RAHF')
  accelerator.start(accelerator.choose())
  rows = len(options.weights) + 1
  scorer = open_scorer.load(job.model, batch_size=rows, devices=None)
  generator = open_generator(arguments.generator, rows=rows)
  warn_of_long_prompts(generator, job.requests)
  settings = {**job.settings(generator), **dataclasses.asdict(options)}
  with claimed(job.out, SETTINGS, settings, '--out'):
    found = _reprompt_all(job, scorer, generator, options)
  missed = sum(bool(row['words']) for row in found)
  better = sum(bool(row['how']) for row in found)
  print(
    f'{len(found):,} images, {missed:,} miss words, {better:,} are better with '
    f'emphasis. {gain_line(found, job.by.text)}'
  )
  print(f'Written to {job.out}')
  return 0


def _reprompt_all(
  job: DrawingJob,
  scorer: Scorer,
  generator: ImageGenerator,
  options: RepromptOptions,
) -> list[Row]:
  def work(missing: set[int]) -> Iterator[tuple[int, Result]]:
    for number in sorted(missing):
      request = job.requests[number].request
      found = reprompt(request, scorer, generator, job.by, options)
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

  return complete(job.out, len(job.requests), work, TABLE, 'Drawing')


def _add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.set_defaults(run=_run)
  add_arguments(
    parser,
    generator='a Muse, or a pipeline of diffusers',
    model='a RAHF that judges words',
    by='alignment',
    by_help='what the best is chosen by',
  )
  add, defaults = parser.add_argument, RepromptOptions()
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
