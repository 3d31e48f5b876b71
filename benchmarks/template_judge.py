"""Measures how often the template judge of shapes is right, on true scenes.

  python benchmarks/template_judge.py [--scenes=2000] [--worlds=small,full]

The scenes are of a seed on which nothing was chosen. Prints, for each world, how many
answers are right, in %, over the prompts that ask; the AUC of the damage score, in %;
and how many images are rightly called damaged or not. Judges plain images, the
undamaged among them, and degraded copies: blurred, noisy, and as JPEG. The speed is
that of one thread. Last, it chooses a level of damage on plain and degraded images of a
quarter as many scenes of another seed, to compare with `template_judge.DAMAGE_LEVEL`.
"""

import io
import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

# Small matrices are not worth a second thread.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import machine
import numpy as np
from absl import app, flags
from PIL import Image
from scipy import ndimage, stats

from rahf.data.datasets.shapes.record import GeneratedExample, make_sample
from rahf.data.datasets.shapes.render import render
from rahf.data.datasets.shapes.template_judge import (
  DAMAGE_LEVEL,
  Answers,
  Verdict,
  judge,
  true_answers,
)
from rahf.data.datasets.shapes.world import WORLDS

_SCENES = flags.DEFINE_integer('scenes', 2000, 'Scenes of each world.')
_WORLDS = flags.DEFINE_list('worlds', ['small', 'full'], 'Names of worlds.')
_SEED = flags.DEFINE_integer('seed', 1001, 'Of the scenes.')
_CHOICE_SEED = 1002
_COLUMNS = (*Answers._fields, 'damage AUC', 'damaged or not')


class _Case(NamedTuple):
  sample: GeneratedExample
  image: np.ndarray
  truth: Answers


def blurred(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Returns the image blurred with a standard deviation of half a pixel."""
  del rng
  smooth = ndimage.gaussian_filter(image.astype(np.float32), (0.5, 0.5, 0))
  return np.round(smooth).astype(np.uint8)


def noisy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Returns the image with noise of a standard deviation of 5 levels."""
  noise = rng.normal(0, 5, image.shape)
  return np.round(image + noise).clip(0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Returns the image after JPEG of quality 75, with colours at half the size."""
  del rng
  data = io.BytesIO()
  Image.fromarray(image).save(data, 'JPEG', quality=75, subsampling='4:2:0')
  return np.asarray(Image.open(data))


DEGRADATIONS = (blurred, noisy, jpeg)


def main(argv: list[str]) -> None:
  del argv
  print(f'{machine.processor()}; {_SCENES.value} scenes of seed {_SEED.value}')
  for world in _WORLDS.value:
    assert world in WORLDS, world
    cases = _cases(world, _SEED.value, _SCENES.value)
    judged, rate = _judge(world, cases)
    print(f'\n{world} world, {rate:.0f} images/s')
    _row('', _COLUMNS)
    _row('plain', _shares(cases, judged))
    clean = [i for i, case in enumerate(cases) if not case.sample.scene.damages]
    _row('undamaged', _shares([cases[i] for i in clean], [judged[i] for i in clean]))
    for change in DEGRADATIONS:
      _row(change.__name__, _shares(cases, _judge(world, cases, change)[0]))
  for world in _WORLDS.value:
    low, high = _best_levels(world, _cases(world, _CHOICE_SEED, _SCENES.value // 4))
    print(
      f'{world} world, seed {_CHOICE_SEED}: the best levels of damage are {low:.1f} to '
      f'{high:.1f}; the judge uses {DAMAGE_LEVEL:.1f}'
    )


def _cases(world: str, seed: int, number: int) -> list[_Case]:
  samples = (make_sample(seed, 'test', i, world) for i in range(number))
  return [
    _Case(s, render(s.scene, 64, s.texture), true_answers(s.scene)) for s in samples
  ]


def _judge(
  world: str, cases: Sequence[_Case], change: Callable | None = None
) -> tuple[list[Verdict], float]:
  """Returns the verdicts, and how many a second of processor time."""
  rng = np.random.default_rng(0)
  images = [change(case.image, rng) if change else case.image for case in cases]
  prompts = [case.sample.prompt.text for case in cases]
  judge(images[0], prompts[0], world)  # Draws the templates.
  start = time.process_time()
  verdicts = [
    judge(image, prompt, world) for image, prompt in zip(images, prompts, strict=True)
  ]
  return verdicts, len(cases) / (time.process_time() - start)


def _shares(cases: Sequence[_Case], verdicts: Sequence[Verdict]) -> list[float]:
  """Returns the values of `_COLUMNS`, in %."""
  shares = []
  for name in Answers._fields:
    pairs = [
      (getattr(case.truth, name), getattr(verdict.words, name))
      for case, verdict in zip(cases, verdicts, strict=True)
    ]
    shares.append(np.mean([true == said for true, said in pairs if true is not None]))
  damaged = np.array([bool(case.sample.scene.damages) for case in cases])
  scores = np.array([verdict.damage for verdict in verdicts])
  said = np.array([verdict.damaged for verdict in verdicts])
  shares += [_auc(damaged, scores), (said == damaged).mean()]
  return [100 * share for share in shares]


def _auc(positive: np.ndarray, scores: np.ndarray) -> float:
  """Returns the share of pairs in the right order; NaN without both classes."""
  if positive.all() or not positive.any():
    return float('nan')
  u = stats.mannwhitneyu(scores[positive], scores[~positive]).statistic
  return u / positive.sum() / (~positive).sum()


def _best_levels(world: str, cases: Sequence[_Case]) -> tuple[float, float]:
  """Returns the lowest and highest of the levels that are right most often."""
  damaged = np.tile([bool(case.sample.scene.damages) for case in cases], 4)
  scores = np.array(
    [
      verdict.damage
      for change in (None, *DEGRADATIONS)
      for verdict in _judge(world, cases, change)[0]
    ]
  )
  differences = DAMAGE_LEVEL * scores / (1 - scores)
  levels = np.arange(0.5, 40, 0.5)
  right = np.array([((differences >= v) == damaged).sum() for v in levels])
  best = levels[right == right.max()]
  return float(best[0]), float(best[-1])


def _row(name: str, values: Sequence[float | str]) -> None:
  cells = [value if isinstance(value, str) else f'{value:.2f}' for value in values]
  print(f'{name:10}' + ''.join(f'{cell:>16}' for cell in cells))


if __name__ == '__main__':
  app.run(main)
