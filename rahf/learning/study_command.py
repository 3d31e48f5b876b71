"""python -m rahf.improve study: its arguments, and what it prints."""

import argparse
import math
import os
import pathlib

from etils import epath

from rahf.data.sources.source import KINDS, open_source
from rahf.drawing.markdown import markdown_table
from rahf.errors import InputError
from rahf.fileio import staged_folder
from rahf.fileio.validators import real, whole
from rahf.learning import study, study_folder
from rahf.learning.choosing import check_flag, local_path, new_path
from rahf.learning.study import ANSWERS, Tally
from rahf.metrics.bootstrap import LEVEL

_DESCRIPTION = """\
Shows people pairs of images of two generators, blindly, and tests their answers.

  python -m rahf.improve study make new=A/images.csv old=B/images.csv --raters=6 \\
    --out=study
  python -m rahf.improve study tally study-key.csv answers.csv

make writes the folder study, with images under random names and questions.csv: each
rater sees every pair, on random sides, some pairs again with sides swapped, and some
images twice. study-key.csv says what is what; raters must not see it. Answers are a
table with the columns question and answer: much_left, left, same, right, much_right.
"""


def _make(arguments: argparse.Namespace) -> int:
  """Writes a study."""
  out = new_path(arguments.out)
  key = new_path(f'{out}-key.csv')
  for name, rule in (
    ('raters', whole(1, 10_000)),
    ('repeats', real(0, 1)),
    ('identical', real(0, 1)),
    ('seed', whole(0)),
  ):
    check_flag(name, getattr(arguments, name), rule)
  (first, paths), (second, others) = map(_named, arguments.generators)
  if first == second:
    raise InputError(f'both generators have the name {first}; give two names')
  names = first, second
  sources = (
    open_source(paths, arguments.prompts, flag=first),
    open_source(others, arguments.prompts, flag=second),
  )
  pairs = study_folder.make_pairs(*sources, names)
  questions = study.plan(
    len(pairs),
    arguments.raters,
    repeats=arguments.repeats,
    identical=arguments.identical,
    seed=arguments.seed,
  )
  with staged_folder.staged(epath.Path(out)) as staged:
    folder = pathlib.Path(staged)
    study_folder.write_study(
      folder, key, sources, names, pairs, questions, arguments.seed
    )
  kinds = [one.kind for one in questions]
  print(
    f'Written to {out}: {len(questions):,} questions '
    f'({kinds.count(study.REPEAT):,} repeats, {kinds.count(study.IDENTICAL):,} of '
    f'identical images) to {arguments.raters:,} raters on {len(pairs):,} pairs; what '
    f'is what: {key}'
  )
  return 0


def _named(text: str) -> tuple[str, str]:
  name, _, path = text.partition('=')
  if not name or not path:
    raise InputError(f'{text!r} is not NAME=IMAGES, such as new=run/images.csv')
  return name, os.fspath(local_path(path, name))


def _tally(arguments: argparse.Namespace) -> int:
  """Prints a tally."""
  key, answers = (
    local_path(path, name).expanduser()
    for path, name in ((arguments.key, 'KEY'), (arguments.answers, 'ANSWERS'))
  )
  found, names, asked = study_folder.read_answers(key, answers)
  print(report(study.tally(found), names))
  if len(found) < asked:
    print(f'- {asked - len(found):,} of {asked:,} questions have no answer yet.')
  return 0


def report(found: Tally, names: tuple[str, str]) -> str:
  """Returns the tally of a study as text, beside the paper's."""
  first, second = names
  number, paper = sum(found.counts), sum(study.PAPER)
  mean = sum(v * n for v, n in zip(ANSWERS.values(), study.PAPER, strict=True)) / paper
  symbols = [f'{first} {symbol} {second}' for symbol in ('≫', '>', '≈', '<', '≪')]
  rows = [
    ['here', *map(str, found.counts), f'{found.mean.value:+.3f}'],
    ['here, %', *(f'{100 * n / number:.1f}' for n in found.counts), ''],
    ['the paper, fine-tuned Muse and Muse', *map(str, study.PAPER), f'{mean:+.3f}'],
    ['the paper, %', *(f'{100 * n / paper:.1f}' for n in study.PAPER), ''],
  ]
  low, high = found.mean.low, found.mean.high
  interval = ''
  if not math.isnan(low):
    interval = (
      f', {LEVEL:.0%} interval over prompts and raters [{low:+.3f}, {high:+.3f}]'
    )
  sides = 'No answer has a preference.'
  if not math.isnan(found.left):
    sides = (
      f'The left was preferred in {_percent(found.left)} of the answers with a '
      f'preference (p = {found.left_p:.3g} if sides do not matter).'
    )
  return '\n'.join(
    [
      markdown_table(['answers', *symbols, 'mean of 2 to -2'], rows),
      '',
      f'- Mean: {found.mean.value:+.3f}{interval}.',
      f"- Over prompts' means: sign test p = {found.sign_p:.3g}, Wilcoxon p = "
      f'{found.wilcoxon_p:.3g}.',
      f'- {sides}',
      f'- Repeats answered alike: {_percent(found.repeated)}; identical pairs answered '
      f"'same': {_percent(found.identical)}.",
    ]
  )


def _percent(share: float) -> str:
  return 'none asked' if math.isnan(share) else f'{100 * share:.1f} %'


def _add_arguments(parser: argparse.ArgumentParser) -> None:
  commands = parser.add_subparsers(required=True, metavar='make | tally')
  _add_make(commands.add_parser('make', help='write the questions'))
  _add_tally(commands.add_parser('tally', help='count and test the answers'))


def _add_make(parser: argparse.ArgumentParser) -> None:
  parser.set_defaults(run=_make)
  add = parser.add_argument
  add(
    'generators',
    nargs=2,
    metavar='NAME=IMAGES',
    help=f'two generators, each with equally many images of each prompt: {KINDS}',
  )
  add('--prompts', default='', metavar='TABLE', help='for folders of images')
  add('--out', required=True, metavar='FOLDER', help='a new folder')
  add('--raters', type=int, default=1, help='number of raters (default: 1)')
  for name, text in (
    ('repeats', 'pairs to show again, with sides swapped'),
    ('identical', 'images to show twice'),
  ):
    text = f'{text}, as a share of all pairs (default: 0.05)'
    add(f'--{name}', type=float, default=0.05, metavar='SHARE', help=text)
  add('--seed', type=int, default=0, help='of orders and sides (default: 0)')


def _add_tally(parser: argparse.ArgumentParser) -> None:
  parser.set_defaults(run=_tally)
  parser.add_argument('key', metavar='KEY', help='the table that make wrote')
  parser.add_argument('answers', metavar='ANSWERS', help='a table: question, answer')


# The description, and the function that adds arguments.
PARSER = _DESCRIPTION, _add_arguments
