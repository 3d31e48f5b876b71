"""python -m rahf.improve inpaint: its arguments, and what it prints."""

import argparse
import dataclasses
import os
import pathlib
import sys
from typing import Any

from rahf.data.sources.source import KINDS, open_source
from rahf.errors import InputError
from rahf.fileio.claimed_folder import claimed
from rahf.fileio.validators import positive, real, whole
from rahf.inference import open_scorer
from rahf.inference.results_folder import check_apart
from rahf.learning import repair_folder
from rahf.learning.choosing import check_flag, local_path
from rahf.learning.item_results import gain_line
from rahf.learning.open_generator import open_inpainter
from rahf.learning.repair import ALL_FLAWED, NO_FLAW, RepairOptions
from rahf.learning.score_expression import parse
from rahf.runtime import accelerator

SETTINGS = 'repair.json'

_DESCRIPTION = """\
Draws anew where the heatmap of an image says that it is implausible (figure 9 of the
paper), and keeps the best of several candidates, of which the image itself is one.

  python -m rahf.improve inpaint images --generator=MUSE --model=RAHF --out=repaired

Outside of the mask, the pixels stay as they are. The folder has the repaired images,
panels of original, heatmap, mask and result, and a table (repairs.csv). The same
command continues after a stop.
"""


def _run(arguments: argparse.Namespace) -> int:
  """Repairs images; see `repair_folder`."""
  for name, rule in (
    ('threshold', positive(1)),
    ('widen', real(0, 1)),
    ('candidates', whole(1, 10_000)),
    ('rounds', whole(1, 1000)),
    ('seed', whole(0, 2**32 - 1)),
  ):
    check_flag(name, getattr(arguments, name), rule)
  options = RepairOptions(
    'implausibility',
    arguments.threshold,
    arguments.widen,
    arguments.candidates,
    arguments.rounds,
    arguments.seed,
  )
  out = local_path(arguments.out, '--out').expanduser()
  folder = open_scorer.find(arguments.model)
  description = open_scorer.read_description(folder)
  outputs = description.outputs
  if options.heatmap not in outputs.maps:
    raise InputError(
      f'--model={folder} makes no heatmap {options.heatmap}; give a RAHF'
    )
  by = parse(arguments.by, outputs.scores)
  images = os.fspath(local_path(arguments.images, 'IMAGES'))
  check_apart(images, out, ('IMAGES ', '--out='))
  source = open_source(images, arguments.prompts, flag='IMAGES')
  accelerator.start(accelerator.choose())
  scorer = open_scorer.load(folder, batch_size=arguments.candidates, devices=None)
  inpainter = open_inpainter(arguments.generator, rows=arguments.candidates)
  settings = {
    'images': source.digest,
    'rows': source.rows,
    'generator': inpainter.fingerprint,
    'sampling': dict(inpainter.settings),
    'model': open_scorer.fingerprint(folder, description),
    'by': by.text,
    **dataclasses.asdict(options),
  }
  with claimed(out, SETTINGS, settings, '--out'):
    rows = repair_folder.repair_images(source, out, scorer, inpainter, by, options)
  return _print_repairs(rows, by.text, out)


def _print_repairs(rows: list[dict[str, Any]], by: str, out: pathlib.Path) -> int:
  scored = [row for row in rows if row['before'] is not None]
  better = sum(row['rounds'] > 0 for row in scored)
  left = [row['note'] for row in scored if not row['rounds']]
  flawless, flawed = left.count(NO_FLAW), left.count(ALL_FLAWED)
  drawn = len(scored) - flawless - flawed
  print(
    f'{len(scored):,} images: {flawless:,} without a flaw above the threshold; '
    f'{flawed:,} with flaws all over, which were left as they are; {drawn:,} drawn '
    f'anew, of which {better:,} are better. {gain_line(rows, by)}'
  )
  if scored and flawless == len(scored):
    print('No mask has a pixel: lower --threshold.')
  elif scored and flawed == len(scored):
    print('All masks cover the whole image: raise --threshold or lower --widen.')
  for row in [row for row in rows if row['before'] is None][:10]:
    print(f'Not repaired: {row["uid"]}: {row["note"]}', file=sys.stderr)
  print(f'Written to {out}')
  return int(len(scored) < len(rows))


def _add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.set_defaults(run=_run)
  add, defaults = parser.add_argument, RepairOptions()
  add('images', metavar='IMAGES', help=KINDS)
  add('--prompts', default='', metavar='TABLE', help='for a folder of images')
  add(
    '--generator',
    required=True,
    metavar='DIR',
    help='a Muse, or a pipeline of diffusers that inpaints',
  )
  add('--model', required=True, metavar='DIR', help='a RAHF')
  add(
    '--by',
    default='plausibility',
    metavar='EXPRESSION',
    help='what the best candidate is chosen by (default: %(default)s)',
  )
  add('--out', required=True, metavar='FOLDER', help='a new folder, or one to continue')
  for name, text in (
    ('threshold', 'value of the heatmap, up to 1, from which on a pixel is flawed'),
    ('widen', "what the mask grows by, as a share of the image's height"),
    ('candidates', 'drawn in a round'),
    ('rounds', 'at most, each from the best image so far'),
    ('seed', "of the candidates' noise"),
  ):
    default = getattr(defaults, name)
    add(
      f'--{name}',
      type=type(default),
      default=default,
      help=f'{text} (default: %(default).4g)',
    )


# The description, and the function that adds arguments.
PARSER = _DESCRIPTION, _add_arguments
