"""python -m rahf.improve guide: its arguments, and what it prints."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import UInt8

from rahf.drawing.markdown import markdown_table
from rahf.errors import InputError
from rahf.fileio.claimed_folder import claimed
from rahf.fileio.validators import real, whole
from rahf.inference import open_scorer
from rahf.inference.generator import Generator
from rahf.inference.image_generator import ImageGenerator, Request
from rahf.learning.choosing import check_flag
from rahf.learning.drawing_job import DrawingJob, add_arguments, read_job
from rahf.learning.guide import GuidedMuse
from rahf.learning.image_requests import warn_of_long_prompts
from rahf.learning.item_results import Result, Row, Table, complete
from rahf.learning.open_generator import open_generator
from rahf.learning.reward import Reward
from rahf.learning.score_expression import Expression
from rahf.metrics import bootstrap
from rahf.metrics.bootstrap import LEVEL
from rahf.runtime import accelerator

SETTINGS = 'guide.json'


class Option(NamedTuple):
  """A flag with a whole number."""

  default: int
  text: str


# Fields of `diffusers_guidance.GuidanceOptions`.
DIFFUSION = {
  'backward': Option(0, 'gradient steps on the clean latents'),
  'recurrence': Option(1, 'how often each step is done'),
  'start': Option(0, 'gradient steps on the starting noise, instead of guidance'),
}


class Guided(Protocol):
  """A generator that a reward guides: `guide.GuidedMuse`, or a pipeline."""

  reward: Reward
  batch_size: int

  def draw(
    self, requests: Sequence[Request], strength: float
  ) -> Iterator[UInt8[np.ndarray, 'H W 3']]:
    """Yields the image of each request, in order."""
    ...


_DESCRIPTION = """\
Guides a generator by the gradient of a score while it draws, with several strengths.

  python -m rahf.improve guide prompts.txt --generator=MUSE --model=RAHF \\
    --by=plausibility --strengths 0 1 3 10 --out=guided

Each prompt is drawn with the same noise at every strength; strength 0 draws without
guidance. The folder has panels of all of them, the image of the highest value, and a
table with the values (guided.csv). A score that is followed too far is fooled: look at
the pictures, and let something judge them that did not guide. The same command
continues after a stop.
"""


def _run(arguments: argparse.Namespace) -> int:
  """Draws with every strength."""
  strengths = sorted({0.0, *arguments.strengths})
  for strength in strengths:
    check_flag('strengths', strength, real(0, 1e6))
  if arguments.steps is not None:
    check_flag('steps', arguments.steps, whole(1, 1000))
  for name in DIFFUSION:
    least = 1 if name == 'recurrence' else 0
    check_flag(name, getattr(arguments, name), whole(least, 1000))
  job = read_job(arguments)
  accelerator.start(accelerator.choose())
  generator = open_generator(
    arguments.generator, rows=arguments.batch_size, steps=arguments.steps or 0
  )
  warn_of_long_prompts(generator, job.requests)
  scorer = open_scorer.load(job.model, batch_size=arguments.batch_size, devices=None)
  reward = Reward(scorer, {term.score: term.weight for term in job.by.terms})
  options = {name: getattr(arguments, name) for name in DIFFUSION}
  guided = _guided(generator, reward, options)
  settings = {
    **job.settings(generator),
    'strengths': strengths,
    **options,
    'batch_size': arguments.batch_size,
  }
  with claimed(job.out, SETTINGS, settings, '--out'):
    rows = _draw_all(job, guided, strengths)
  print(f'{job.by.text} of {len(rows):,} images with the same noise at each strength:')
  print(f'\n{_table(rows, strengths)}\n\nWritten to {job.out}')
  return 0


def _guided(
  generator: ImageGenerator, reward: Reward, options: Mapping[str, int]
) -> Guided:
  if not isinstance(generator, Generator):  # Then PyTorch is there.
    from rahf.learning.diffusers_guidance import GuidanceOptions, GuidedDiffusion

    return GuidedDiffusion(generator, reward, GuidanceOptions(**options))
  for name, value in options.items():
    if value != DIFFUSION[name].default:
      raise InputError(f'--{name} is for pipelines of diffusers, not for a Muse')
  return GuidedMuse(generator, reward)


def _draw_all(job: DrawingJob, guided: Guided, strengths: Sequence[float]) -> list[Row]:
  names = [f'at {strength:g}' for strength in strengths]

  def work(missing: set[int]) -> Iterator[tuple[int, Result]]:
    left = sorted(missing)
    for start in range(0, len(left), guided.batch_size):
      part = left[start : start + guided.batch_size]
      asked = [job.requests[number].request for number in part]
      drawn = [[*guided.draw(asked, strength)] for strength in strengths]
      values = [_values(guided, images, asked, job.by) for images in drawn]
      for i, number in enumerate(part):
        images = [of_strength[i] for of_strength in drawn]
        found = [of_strength[i] for of_strength in values]
        row = {'prompt': asked[i].prompt, 'seed': asked[i].seed}
        row |= {'number': asked[i].number, **dict(zip(names, found, strict=True))}
        best = int(np.argmax(found))
        row['strength'] = strengths[best]
        yield number, Result(row, images[best], images)

  table = Table(
    'guided.csv',
    ('file_name', 'prompt', 'seed', 'number', 'strength', *names),
    {f'strength {strength:g}': f'at {strength:g}' for strength in strengths},
  )
  return complete(job.out, len(job.requests), work, table, 'Drawing')


def _values(
  guided: Guided,
  images: Sequence[np.ndarray],
  asked: Sequence[Request],
  by: Expression,
) -> list[float]:
  feedback = guided.reward.model.score(images, [one.prompt for one in asked])
  return [by.finite_value(one.scores) for one in feedback]


def _table(rows: Sequence[Row], strengths: Sequence[float]) -> str:
  """Returns means by strength, and the gain over no guidance with its interval."""
  lines = []
  for strength in strengths:
    values = np.array([row[f'at {strength:g}'] for row in rows])
    gains = values - np.array([row['at 0'] for row in rows])
    gain = bootstrap.resample(bootstrap.mean(gains), len(rows)).interval
    lines.append(
      [
        f'{strength:g}',
        f'{values.mean():.4f}',
        f'{gain.value:+.4f}',
        '' if np.isnan(gain.low) else f'[{gain.low:+.4f}, {gain.high:+.4f}]',
      ]
    )
  return markdown_table(('strength', 'mean', 'gain', f'{LEVEL:.0%} interval'), lines)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.set_defaults(run=_run)
  add_arguments(
    parser,
    generator='a Muse, or a StableDiffusionPipeline of diffusers',
    model='a RAHF, or a CLIP',
    by='plausibility',
    by_help='the score that guides, or a weighted sum',
  )
  add = parser.add_argument
  add('--steps', type=int, help="sampling steps (default: the model's)")
  for name, (default, text) in DIFFUSION.items():
    add(
      f'--{name}',
      type=int,
      default=default,
      help=f'of diffusion: {text} (default: %(default)s)',
    )
  add(
    '--strengths',
    type=float,
    nargs='+',
    default=[1.0, 3.0, 10.0],
    metavar='STRENGTH',
    help='how strongly the score guides: root mean square of what is added to the '
    'logits of a Muse, or factor of the gradient in diffusion; 0 is always drawn, too '
    '(default: 1 3 10)',
  )
  add(
    '--batch_size',
    type=int,
    default=8,
    help='images drawn at once (default: %(default)s)',
  )


# The description, and the function that adds arguments.
PARSER = _DESCRIPTION, _add_arguments
