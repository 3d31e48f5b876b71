"""Judges a Muse of the shapes: what it draws for new prompts, and what its tokens keep.

  python benchmarks/shapes_generator.py MODEL [--prompts=1000] [--world=small]

MODEL is a directory of `--mode=export`. The prompts are of scenes of a seed that no
training has. The template judge looks at

  true      the images of these scenes, misaligned and damaged ones included
  tokens    the same, encoded and decoded
  drawn     images that the model draws for the prompts, each with a seed of its own

and says which share of them has the colours, kinds, counts and places of the prompt,
over the prompts that ask, and which share has objects without damage (an empty image
has none), with 95 % intervals of Wilson in %. For true images it is known which are
damaged: the AUC says whether the judge can still tell after encoding. The level from
which encoded and drawn images count as damaged is the one that is right most often for
encoded scenes of another seed.
"""

import math
import os
from collections.abc import Iterator, Sequence

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import jax
import jax.numpy as jnp
import machine
import numpy as np
from absl import app, flags
from PIL import Image
from scipy import stats
from tqdm import tqdm

import rahf
from rahf.data.datasets.shapes.record import make_sample
from rahf.data.datasets.shapes.render import render
from rahf.data.datasets.shapes.template_judge import (
  DAMAGE_LEVEL,
  Answers,
  Verdict,
  judge,
)
from rahf.data.datasets.shapes.world import WORLDS
from rahf.drawing.markdown import markdown_table
from rahf.inference.generator import Generator
from rahf.inference.image_generator import Request
from rahf.models.muse import generator as muse_generator
from rahf.pretrained import load

_PROMPTS = flags.DEFINE_integer('prompts', 1000, 'New prompts.', lower_bound=20)
_WORLD = flags.DEFINE_enum('world', 'small', [*WORLDS], 'World of shapes.')
_STEPS = flags.DEFINE_integer('steps', 0, "Of the sampling; 0 for the model's own.")
_GUIDANCE = flags.DEFINE_float('guidance', 0, "Of the sampling; 0 for the model's own.")
_SHARPNESS = flags.DEFINE_float(
  'sharpness', 0, "Of the sampling; 0 for the model's own."
)
_TEMPERATURE = flags.DEFINE_list(
  'temperature', [], "First and last, of the sampling; the model's own if empty."
)
_SHEET = flags.DEFINE_string(
  'sheet', '', 'Where to write a picture of 64 drawn images.'
)
_SEED = flags.DEFINE_integer(
  'seed', 2001, 'Of the scenes. Choose settings with another one than you report.'
)
_CHOICE_SEED = 2002
_BATCH = 50


def main(argv: list[str]) -> None:
  """Prints a table."""
  folder = argv[1]
  given = {'steps': _STEPS.value, 'guidance': _GUIDANCE.value}
  given['sharpness'] = _SHARPNESS.value
  sampling = {name: value for name, value in given.items() if value}
  if _TEMPERATURE.value:
    sampling['temperature'] = tuple(map(float, _TEMPERATURE.value))
  model = rahf.load(folder, rows=_BATCH, sampling=sampling)
  print(f'{machine.processor()}; {_PROMPTS.value} prompts; {model.sampling}')
  level, right = choose_level(model, folder)
  print(f'Damage counts from {level:.1f} on: right for {100 * right:.1f} % of tokens')
  prompts, images, damaged = scenes(_SEED.value, _PROMPTS.value)
  coded = encode_and_decode(model, folder, images)
  requests = [Request(prompt, seed) for seed, prompt in enumerate(prompts)]
  drawn = [*tqdm(model.draw(requests), 'Drawing', len(prompts), disable=None)]
  rows = [
    ['true', *row(judge_all(images, prompts, DAMAGE_LEVEL), damaged)],
    ['tokens', *row(judge_all(coded, prompts, level), damaged)],
    ['drawn', *row(judge_all(drawn, prompts, level), None)],
  ]
  header = ('', *Answers._fields, 'undamaged', 'AUC of damage')
  print(markdown_table(header, rows))
  if _SHEET.value:
    grid = np.array(drawn[:64]).reshape(8, 8, *drawn[0].shape).swapaxes(1, 2)
    Image.fromarray(grid.reshape(-1, 8 * drawn[0].shape[1], 3)).save(_SHEET.value)


def scenes(seed: int, number: int) -> tuple[list[str], np.ndarray, np.ndarray]:
  """Returns prompts, their images, and which of these are damaged."""
  samples = [make_sample(seed, 'test', i, _WORLD.value) for i in range(number)]
  images = [render(one.scene, 64, one.texture) for one in samples]
  damaged = [bool(one.scene.damages) for one in samples]
  return [one.prompt.text for one in samples], np.array(images), np.array(damaged)


def encode_and_decode(model: Generator, folder: str, images: np.ndarray) -> np.ndarray:
  """Returns images as their tokens show them."""
  params = load(folder)

  @jax.jit
  def reconstruct(images: jax.Array) -> jax.Array:
    tokens = muse_generator.encode(model.muse, params, images)
    return jnp.clip(muse_generator.decode(model.muse, params, tokens), 0, 1)

  parts = [
    np.round(255 * np.asarray(reconstruct(part.astype(np.float32) / 255)))
    for part in batches(images)
  ]
  return np.concatenate(parts).astype(np.uint8)


def batches(images: np.ndarray) -> Iterator[np.ndarray]:
  """Yields the images in parts."""
  for start in range(0, len(images), _BATCH):
    yield images[start : start + _BATCH]


def judge_all(
  images: Sequence[np.ndarray], prompts: Sequence[str], level: float
) -> list[Verdict]:
  """Returns the judge's verdicts."""
  pairs = zip(images, prompts, strict=True)
  return [judge(image, prompt, _WORLD.value, level) for image, prompt in pairs]


def choose_level(model: Generator, folder: str) -> tuple[float, float]:
  """Returns the level that is right most often, and how often it is."""
  prompts, images, damaged = scenes(_CHOICE_SEED, max(20, _PROMPTS.value // 4))
  coded = encode_and_decode(model, folder, images)
  scores = np.array([v.damage for v in judge_all(coded, prompts, DAMAGE_LEVEL)])
  worst = DAMAGE_LEVEL * scores / (1 - scores)
  levels = np.arange(1, 60, 0.5)
  right = np.array([((worst >= level) == damaged).mean() for level in levels])
  best = levels[right == right.max()]
  return float(np.median(best)), float(right.max())


def row(verdicts: Sequence[Verdict], damaged: np.ndarray | None) -> list[str]:
  """Returns the cells of a row of the table."""
  cells = []
  for name in Answers._fields:
    said = [getattr(verdict.words, name) for verdict in verdicts]
    cells.append(share([one for one in said if one is not None]))
  cells.append(share([verdict.undamaged for verdict in verdicts]))
  if damaged is None:
    return [*cells, '']
  scores = np.array([verdict.damage for verdict in verdicts])
  u = stats.mannwhitneyu(scores[damaged], scores[~damaged]).statistic
  return [*cells, f'{u / damaged.sum() / (~damaged).sum():.3f}']


def share(right: Sequence[bool]) -> str:
  """Returns a share in % with its interval."""
  interval = stats.binomtest(sum(right), len(right)).proportion_ci(method='wilson')
  half = 50 * (interval.high - interval.low)
  return f'{100 * math.fsum(right) / len(right):.1f} ± {half:.1f}'


if __name__ == '__main__':
  app.run(main)
