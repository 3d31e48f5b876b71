"""Shared by the parts of the closed-loop experiment: scenes, judges, finished parts."""

import functools
import importlib
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from absl import flags
from etils import epath
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict

import rahf
from rahf.data.datasets.shapes.record import make_sample
from rahf.data.datasets.shapes.template_judge import judge
from rahf.export import export
from rahf.inference.image_generator import Request
from rahf.inference.scorer import Scorer
from rahf.runtime.preemption import Interruption
from rahf.train import train

SCRATCH = flags.DEFINE_string('scratch', 'runs/closed_loop', 'Folder of all results.')
LEVEL = flags.DEFINE_float(
  'damage_level', 5.5, 'See benchmarks/shapes_generator.py, which chooses it.'
)
WORLD = 'small'
# Seeds of scenes: the generator's is 0; no two of these overlap.
RAHF_SEED, SECOND_SEED, POOL_SEED, TEST_SEED, REAL_SEED = 11, 12, 13, 14, 15
REPAIR_SEED, WORDS_SEED, REWARD_SEED, THRESHOLD_SEED = 16, 17, 18, 19
BATCH = 40
# Images of each prompt to test with.
NOISES = 3
# Images of each that the generator draws before it is trained further.
BEST_OF = 8


def scratch() -> pathlib.Path:
  """Returns the folder of all results."""
  return pathlib.Path(SCRATCH.value).absolute()


def scorers() -> dict[str, pathlib.Path]:
  """Returns the two RAHF that `closed_loop.py` trains: the second one only judges."""
  return {name: scratch() / name / 'export' for name in ('rahf', 'second')}


@functools.cache
def opened(path: pathlib.Path) -> Scorer:
  """Returns a RAHF."""
  return rahf.load(path, batch_size=BATCH)


def scenes(seed: int, count: int) -> list:
  """Returns samples of true scenes."""
  return [make_sample(seed, 'test', i, WORLD) for i in range(count)]


def requests_to_test(prompts: int, noises: int = NOISES) -> list[Request]:
  """Returns the same new prompts for all arms, each with noise of its own."""
  return [
    Request(one.prompt.text, 1000 + place, number)
    for place, one in enumerate(scenes(TEST_SEED, prompts))
    for number in range(noises)
  ]


def test_images(arm: str, seed: int) -> tuple[pathlib.Path, int]:
  """Returns where the test images of an arm are, and how many each prompt has.

  Those of base, which no seed changes, are drawn once.
  """
  if arm == 'base':
    return scratch() / 'base/test', BEST_OF
  return scratch() / f'seed{seed}' / arm / 'test', NOISES


def read_config(name: str) -> ConfigDict:
  """Returns the config of a file in configs/, NAME or NAME:ARGUMENT."""
  file, _, argument = name.partition(':')
  module = importlib.import_module(f'configs.{file}')
  return module.get_config(argument) if argument else module.get_config()


def run(config: ConfigDict, workdir: pathlib.Path) -> pathlib.Path:
  """Trains, or continues, and exports; returns the export."""
  if not (workdir / 'export').exists():
    interruption = Interruption()
    train(config, epath.Path(workdir), interruption)
    export(config, epath.Path(workdir), interruption)
  return workdir / 'export'


def done(folder: pathlib.Path, make: Callable[[pathlib.Path], None]) -> pathlib.Path:
  """Makes a folder if it is not there; a part of one is never taken for the whole."""
  if not folder.exists():
    part = folder.with_name(f'{folder.name}.part')
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    make(part)
    part.rename(folder)
  return folder


def judge_all(
  images: Sequence[UInt8[np.ndarray, 'H W 3']],
  prompts: Sequence[str],
  models: Mapping[str, pathlib.Path],
) -> dict[str, Float[np.ndarray, 'N']]:
  """Returns what the template judge and RAHFs say of images.

  Args:
    models: RAHFs by name.

  Returns:
    `undamaged`, 0 or 1; `intact`, from 0 to 1, which says how undamaged and is 0 for an
    empty image; `words`, the share of the prompt's attributes that are right; and of
    each model NAME.plausibility and NAME.alignment.
  """
  found = {'undamaged': [], 'words': [], 'intact': []}
  for image, prompt in zip(images, prompts, strict=True):
    verdict = judge(image, prompt, WORLD, LEVEL.value)
    said = [answer for answer in verdict.words if answer is not None]
    found['undamaged'].append(verdict.undamaged)
    found['intact'].append(bool(verdict.objects) * (1 - verdict.damage))
    found['words'].append(np.mean(said))
  for name, path in models.items():
    scores = [one.scores for one in opened(path).score(images, prompts)]
    for score in ('plausibility', 'alignment'):
      found[f'{name}.{score}'] = [one[score] for one in scores]
  return {name: np.array(values, float) for name, values in found.items()}
