"""python -m rahf.improve guide: its arguments, and what it prints."""

import argparse
import hashlib
import json
import os
from collections.abc import Iterator, Sequence

import numpy as np

from rahf.drawing.markdown import markdown_table
from rahf.errors import InputError
from rahf.fileio.claimed_folder import claimed
from rahf.fileio.validators import real, whole
from rahf.inference import open_scorer
from rahf.inference.generator import Generator
from rahf.learning.choosing import check_flag, local_path
from rahf.learning.guide import GuidedGenerator
from rahf.learning.image_requests import ImageRequest, read_requests
from rahf.learning.item_results import Result, Row, Table, complete
from rahf.learning.open_generator import open_generator
from rahf.learning.reward import Reward
from rahf.learning.score_expression import Expression, parse
from rahf.metrics.bootstrap import resample
from rahf.runtime import accelerator

SETTINGS = 'guide.json'
_DESCRIPTION = """\
Guides a Muse by the gradient of a score while it draws, with several strengths.

  python -m rahf.improve guide prompts.txt --generator=MUSE --model=RAHF \\
    --by=plausibility --strengths 0 1 3 10 --out=guided

Each prompt is drawn with the same noise at every strength, of which 0 is no guidance.
The folder has panels of all of them, the image of the highest value, and a table with
the values (guided.csv). A score that is followed too far is fooled: look at the
pictures, and let something judge them that did not guide. The same command continues
after a stop.
"""


def _run(arguments: argparse.Namespace) -> int:
  """Draws with every strength."""
  for name, rule in (
    ('images_per_prompt', whole(1, 1_000_000)),
    ('seed', whole(0, 2**32 - 1)),
  ):
    check_flag(name, getattr(arguments, name), rule)
  strengths = sorted({0.0, *arguments.strengths})
  for strength in strengths:
    check_flag('strengths', strength, real(0, 1e6))
  out = local_path(arguments.out, '--out').expanduser()
  folder = open_scorer.find(arguments.model)
  by = parse(arguments.by, open_scorer.read_description(folder).outputs.scores)
  requests = read_requests(
    local_path(arguments.prompts, 'PROMPTS').expanduser(),
    arguments.images_per_prompt,
    arguments.seed,
    '',
  )
  accelerator.start(accelerator.choose())
  generator = open_generator(arguments.generator, rows=arguments.batch_size)
  if not isinstance(generator, Generator):
    raise InputError(
      f'--generator={arguments.generator} is drawn by PyTorch; only a Muse is guided'
    )
  scorer = open_scorer.load(folder, batch_size=arguments.batch_size, devices=None)
  reward = Reward(scorer, {term.score: term.weight for term in by.terms})
  guided = {s: GuidedGenerator(generator, reward, s) for s in strengths}
  settings = {
    'requests': hashlib.sha256(json.dumps(requests).encode()).hexdigest(),
    'generator': generator.fingerprint,
    'sampling': dict(generator.settings),
    'model': os.fspath(folder),
    'by': by.text,
    'strengths': strengths,
    'batch_size': arguments.batch_size,
  }
  with claimed(out, SETTINGS, settings, '--out'):
    rows = _draw_all(requests, out, guided, by)
  print(f'{by.text} of {len(rows):,} images with the same noise at each strength:\n')
  print(_table(rows, strengths))
  print(f'\nWritten to {out}')
  return 0


def _draw_all(
  requests: Sequence[ImageRequest],
  out: os.PathLike,
  guided: dict[float, GuidedGenerator],
  by: Expression,
) -> list[Row]:
  scorer = next(iter(guided.values())).reward.model
  size = next(iter(guided.values())).batch_size
  names = [f'at {strength:g}' for strength in guided]

  def work(missing: set[int]) -> Iterator[tuple[int, Result]]:
    left = sorted(missing)
    for start in range(0, len(left), size):
      part = left[start : start + size]
      asked = [requests[number].request for number in part]
      drawn = [[*one.draw(asked)] for one in guided.values()]
      for i, number in enumerate(part):
        images = [images[i] for images in drawn]
        feedback = scorer.score(images, asked[i].prompt)
        values = [by.value(one.scores) for one in feedback]
        row = {'prompt': asked[i].prompt, 'seed': asked[i].seed}
        row |= {'number': asked[i].number, **dict(zip(names, values, strict=True))}
        yield number, Result(row, images[int(np.argmax(values))], images)

  table = Table(
    'guided.csv',
    ('file_name', 'prompt', 'seed', 'number', *names),
    {f'strength {strength:g}': f'at {strength:g}' for strength in guided},
  )
  return complete(out, len(requests), work, table, 'Drawing')


def _table(rows: Sequence[Row], strengths: Sequence[float]) -> str:
  """Returns means by strength, and the gain over no guidance with its interval."""
  lines = []
  for strength in strengths:
    values = np.array([row[f'at {strength:g}'] for row in rows])
    gains = values - np.array([row['at 0'] for row in rows])
    gain = resample(lambda drawn, g=gains: float(g[drawn].mean()), len(rows)).interval
    lines.append(
      [
        f'{strength:g}',
        f'{values.mean():.4f}',
        f'{gain.value:+.4f}',
        '' if np.isnan(gain.low) else f'[{gain.low:+.4f}, {gain.high:+.4f}]',
      ]
    )
  return markdown_table(('strength', 'mean', 'gain', '95 % interval'), lines)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.set_defaults(run=_run)
  add = parser.add_argument
  add('prompts', metavar='PROMPTS', help='a text file or table, as for --mode=generate')
  add('--generator', required=True, metavar='DIR', help='a Muse')
  add('--model', required=True, metavar='DIR', help='a RAHF, or a CLIP')
  add(
    '--by',
    default='plausibility',
    metavar='EXPRESSION',
    help='the score that guides, or a weighted sum (default: %(default)s)',
  )
  add(
    '--strengths',
    type=float,
    nargs='+',
    default=[1.0, 3.0, 10.0],
    metavar='STRENGTH',
    help='root mean square of what is added to the logits (default: 1 3 10)',
  )
  add('--out', required=True, metavar='FOLDER', help='a new folder, or one to continue')
  add('--images_per_prompt', type=int, default=1, help='(default: %(default)s)')
  add('--seed', type=int, default=0, help='of the noise (default: %(default)s)')
  add('--batch_size', type=int, default=8, help='(default: %(default)s)')


# The description, and the function that adds arguments.
PARSER = _DESCRIPTION, _add_arguments
