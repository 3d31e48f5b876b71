"""The arguments of `python -m rahf.data attributes` and `sample`, and their help."""

import argparse
import pathlib

from rahf.data.sources.source import KINDS
from rahf.fileio.validators import argument, real, whole

_ATTRIBUTES = f"""\
Answers questions about images, by default the paper's: is the image photorealistic, and
does it show a human, an animal, an object, an indoor or an outdoor scene?

With --clip, a CLIP answers that was not trained on the questions. --questions is a JSON
file of other questions, their answers, and texts that describe such images. A CLIP is
often too sure of its answers: with --calibrate, a table of known answers of some of the
images (uid and a column for each question), confidences are fitted to them.

With --table, the answers are read from a table of that form, such as those of a VQA
model or of people.

IMAGES is a prepared data set, beside which the answers are written to attributes.csv;
or {KINDS}.
"""
_SAMPLE = """\
Draws a part of the images in which answers have given shares:

  --quota=category=even --quota=photorealistic=yes:0.8,no:0.2

If quotas cannot be met, the message says what is missing. The same seed draws the same
images. Writes into --out:

  images/         the images, unchanged
  prompts.csv     their prompts, as `rahf.annotate` and `rahf.data prepare` take them
  attributes.csv  the answers
  report.md       how many images had each answer before, and have it now
  shares.png      the same, drawn
"""


def add_attributes(commands) -> argparse.ArgumentParser:
  """Adds `attributes` to what argparse's `add_subparsers` returned."""
  parser = commands.add_parser(
    'attributes',
    help='ask a CLIP about images, such as their category, or read answers',
    description=_ATTRIBUTES,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add, path = parser.add_argument, pathlib.Path
  add('images', metavar='IMAGES', help='see above')
  add('--clip', metavar='CLIP', help='a CLIP, as rahf.load takes it')
  add('--table', type=path, help='CSV, TSV, JSONL or parquet: uid, and the answers')
  add('--questions', type=path, metavar='FILE', help="JSON (default: the paper's two)")
  add('--calibrate', type=path, metavar='TABLE', help='known answers of some images')
  add(
    '--temperature',
    action='append',
    default=[],
    metavar='NAME=NUMBER',
    help='of a question, from an earlier calibration; may be given again',
  )
  add('--out', type=path, metavar='FILE', help='CSV (default: beside a prepared set)')
  return parser


def add_sample(commands) -> argparse.ArgumentParser:
  """Adds `sample` to what argparse's `add_subparsers` returned."""
  parser = commands.add_parser(
    'sample',
    help='draw images in which attributes have given shares',
    description=_SAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add, path = parser.add_argument, pathlib.Path
  add('images', metavar='IMAGES', help='as for `attributes`')
  add('--quota', action='append', required=True, help='see above; may be given again')
  add('--count', type=argument(int, whole(1)), required=True, help='of images to draw')
  add('--out', type=path, required=True, metavar='FOLDER', help='where to write')
  add('--attributes', type=path, metavar='TABLE', help='(default: of a prepared set)')
  add('--prompts', metavar='TABLE', help='of a folder of images: file_name and prompt')
  add(
    '--confidence',
    type=argument(float, real(0, 1)),
    default=0.0,
    help='least confidence of the answers with quotas (default: %(default)s)',
  )
  add('--seed', type=argument(int, whole(0)), default=0, help='(default: %(default)s)')
  return parser
