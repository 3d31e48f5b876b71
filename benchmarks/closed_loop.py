"""Does a generator get better because RAHF looked at its images? An experiment.

  python benchmarks/closed_loop.py GENERATOR [--scratch=runs/closed_loop] [--seeds=3]

GENERATOR is the export of `configs/muse_shapes.py:generator`. Stages, each of which is
skipped if it is done, so that the same command continues after a stop:

  rahf, second  two RAHF learn from true scenes of other seeds; they never see what the
                generator draws. The second one only judges.
  pools         for every seed, 8 images of each of 500 prompts
  arms          the generator is trained further on 2 of the 8 images of each prompt
  test          200 new prompts, 3 images of each, with the same noise for all arms

The arms train on images that are chosen at random (random); by RAHF's plausibility, the
highest (rahf), the lowest (worst), or shuffled among the images of a prompt (shuffled);
by the template judge, which does not learn, the least damaged (oracle). One trains on
as many true images (real), and base is not trained further; of 8 images that it draws
of each test prompt, RAHF also chooses the best one.

Predicted: oracle >= rahf > random, shuffled and base, which are alike, > worst. RAHF is
judged by the template judge (share of undamaged images) and by the second RAHF; the
oracle, which chooses by the template judge, is judged by the second RAHF alone. Results
are means with intervals over seeds and prompts, and whatever comes out is printed.
SCRATCH/arms.png shows what the arms draw of the same prompts with the same noise.
"""

import csv
import functools
import json
import os
import pathlib
import sys
from collections.abc import Sequence

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import closed_loop_arms as arms
import closed_loop_common as common
import machine
import numpy as np
from absl import app, flags, logging
from closed_loop_arms import Pool
from closed_loop_common import (
  BATCH,
  BEST_OF,
  NOISES,
  POOL_SEED,
  RAHF_SEED,
  REAL_SEED,
  SECOND_SEED,
  WORLD,
  done,
  judge_all,
  read_config,
  run,
  scenes,
)
from PIL import Image
from tqdm import tqdm

import rahf
from rahf.data.datasets.images import prepare_images
from rahf.data.datasets.shapes.render import render
from rahf.data.images.codec import encode_png
from rahf.drawing import contact_sheet
from rahf.drawing.markdown import markdown_table
from rahf.inference.image_generator import Request
from rahf.models.muse import generator as muse_generator
from rahf.pretrained import load

_SEEDS = flags.DEFINE_integer('seeds', 3, 'Repetitions.', lower_bound=1)
_PROMPTS = flags.DEFINE_integer('prompts', 500, 'To train with.', lower_bound=4)
_TESTS = flags.DEFINE_integer('tests', 200, 'Prompts to test with.', lower_bound=4)
_STEPS = flags.DEFINE_integer('steps', 300, 'Of fine-tuning.', lower_bound=1)
_RAHF_STEPS = flags.DEFINE_integer('rahf_steps', 3500, 'Of each RAHF.', lower_bound=1)
# Images of a prompt: in a pool, and how many of them an arm trains on.
GROUP, KEPT = 8, 2
# Prompts in the picture.
SHOWN = 12
ARMS = ('base', *arms.CHOSEN, 'real')


def main(argv: list[str]) -> None:
  """Runs what is missing, and prints the tables."""
  logging.set_verbosity(logging.WARNING)  # Orbax logs every step.
  generator = pathlib.Path(argv[1]).absolute()
  print(f'{machine.processor()}; {machine.accelerator()}', flush=True)
  scratch = common.scratch()
  scratch.mkdir(parents=True, exist_ok=True)
  scorers = {
    name: train_rahf(scratch / name, seed)
    for name, seed in (('rahf', RAHF_SEED), ('second', SECOND_SEED))
  }
  test = functools.partial(draw_and_judge, scorers=scorers)
  requests = common.requests_to_test(_TESTS.value, BEST_OF)
  done(
    common.test_images('base', 0)[0],
    functools.partial(test, model=generator, requests=requests),
  )
  requests = common.requests_to_test(_TESTS.value)
  for seed in range(_SEEDS.value):
    folder = scratch / f'seed{seed}'
    pool = done(
      folder / 'pool', lambda to, s=seed: make_pool(to, generator, scorers, s)
    )
    for arm in ARMS[1:]:
      model = fine_tune(folder / arm, arm, pool, generator, seed)
      done(
        common.test_images(arm, seed)[0],
        functools.partial(test, model=model, requests=requests),
      )
  report(scratch)
  print(f'\nDrawn: {draw_arms(scratch)}')


def train_rahf(workdir: pathlib.Path, seed: int) -> pathlib.Path:
  """Trains a RAHF on true scenes of a seed; returns its export."""
  config = read_config('quickstart')
  config.data.shapes.update(world=WORLD, seed=seed)
  config.train.steps = _RAHF_STEPS.value
  config.optimizer.update(
    warmup_steps=_RAHF_STEPS.value // 9, cooldown_steps=_RAHF_STEPS.value // 3
  )
  return run(config, workdir)


def make_pool(
  folder: pathlib.Path,
  generator: pathlib.Path,
  scorers: dict[str, pathlib.Path],
  seed: int,
) -> None:
  """Draws the images that arms choose from, and lets all judge them."""
  prompts = [one.prompt.text for one in scenes(POOL_SEED + 100 * seed, _PROMPTS.value)]
  requests = [Request(p, seed, number) for p in prompts for number in range(GROUP)]
  draw_and_judge(folder, generator, requests, scorers)


def draw_and_judge(
  folder: pathlib.Path,
  model: pathlib.Path,
  requests: Sequence[Request],
  scorers: dict[str, pathlib.Path],
) -> None:
  """Writes images, prompts, and a table of what everyone says of each image."""
  muse = rahf.load(model, rows=BATCH)
  images = np.stack(
    [*tqdm(muse.draw(requests), f'Drawing {folder.parent.name}', len(requests))]
  )
  prompts = [one.prompt for one in requests]
  found = judge_all(images, prompts, scorers)
  found = {name: values.tolist() for name, values in found.items()}
  params = load(model)
  tokens = [
    np.asarray(muse_generator.encode(muse.muse, params, part / np.float32(255)))
    for part in np.array_split(images, -(-len(images) // BATCH))
  ]
  np.save(folder / 'images.npy', images)
  (folder / 'prompts.json').write_text(json.dumps(prompts))
  found['entropy'] = arms.entropy(np.concatenate(tokens).reshape(len(images), -1))
  (folder / 'found.json').write_text(json.dumps(found))


def found_in(folder: pathlib.Path) -> dict:
  """Returns what `draw_and_judge` found."""
  return json.loads((folder / 'found.json').read_text())


def read(folder: pathlib.Path, group: int, name: str) -> np.ndarray:
  """Returns a measure of the images, by prompt and number."""
  return np.array(found_in(folder)[name]).reshape(-1, group)


def read_test(arm: str, seed: int, name: str) -> np.ndarray:
  """Returns a measure of the test images, by prompt and number."""
  return read(*common.test_images(arm, seed), name)[:, :NOISES]


def fine_tune(
  workdir: pathlib.Path,
  arm: str,
  pool: pathlib.Path,
  generator: pathlib.Path,
  seed: int,
) -> pathlib.Path:
  """Trains the generator further on the images of an arm; returns the export."""
  if not (workdir / 'export').exists():
    done(workdir / 'data', lambda to: write_data(to, arm, pool, seed))
  config = read_config(f'muse:{generator}')
  config.seed = seed
  config.data.update(name='kept', dir=str(workdir / 'data'))
  config.muse.update(dtype='float32')
  config.muse.transformer.remat = False
  config.optimizer.update(
    learning_rate=3e-4, schedule='linear', warmup_steps=min(20, _STEPS.value // 2)
  )
  config.train.update(
    steps=_STEPS.value, batch_size=32, checkpoint_every=_STEPS.value, average=0.98
  )
  config.eval.update(every=_STEPS.value + 1, batch_size=BATCH)
  return run(config, workdir / 'run')


def write_data(folder: pathlib.Path, arm: str, pool: pathlib.Path, seed: int) -> None:
  """Writes the images of an arm as a data set."""
  if arm == 'real':
    samples = scenes(REAL_SEED + 100 * seed, KEPT * _PROMPTS.value)
    images = [render(one.scene, 64, one.texture) for one in samples]
    prompts = [one.prompt.text for one in samples]
  else:
    scores = (read(pool, GROUP, name) for name in ('rahf.plausibility', 'intact'))
    chosen = arms.choose(arm, Pool(*scores), KEPT, seed).ravel()
    images = np.load(pool / 'images.npy')[chosen]
    prompts = np.array(json.loads((pool / 'prompts.json').read_text()))[chosen]
  (folder / 'images').mkdir()
  with (folder / 'images.csv').open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(('path', 'prompt'))
    for number, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
      Image.fromarray(image).save(folder / f'images/{number}.png')
      writer.writerow((f'images/{number}.png', prompt))
  prepare_images(folder, name='kept', input=str(folder / 'images.csv'))


def draw_arms(scratch: pathlib.Path) -> pathlib.Path:
  """Draws the first image of some prompts by every arm; returns the file."""
  images = {}
  for arm in ARMS:
    test, group = common.test_images(arm, 0)
    images[arm] = np.load(test / 'images.npy')[::group]
  test, group = common.test_images('base', 0)
  prompts = json.loads((test / 'prompts.json').read_text())[::group]
  rows = []
  for place in np.linspace(0, len(prompts) - 1, SHOWN, dtype=int):
    tiles = [
      contact_sheet.Tile(encode_png(drawn[place]), arm, '')
      for arm, drawn in images.items()
    ]
    rows.append(contact_sheet.Row(prompts[place], tiles))
  (sheet,) = contact_sheet.sheets(rows)
  sheet.save(scratch / 'arms.png')
  return scratch / 'arms.png'


MEASURES = {
  'undamaged': 'undamaged, template judge',
  'second.plausibility': 'plausibility, second RAHF',
  'rahf.plausibility': 'plausibility, RAHF that chose',
  'words': 'words right, template judge',
}


def report(scratch: pathlib.Path) -> None:
  """Prints the tables."""
  seeds = range(_SEEDS.value)
  values = {
    name: {
      arm: np.stack([read_test(arm, seed, name).mean(1) for seed in seeds])
      for arm in ARMS
    }
    for name in MEASURES
  }
  best = {name: best_of(*common.test_images('base', 0), name) for name in MEASURES}
  rows = []
  for arm in ARMS:
    entropies = [found_in(common.test_images(arm, s)[0])['entropy'] for s in seeds]
    shown = [arms.shown(values[name][arm]) for name in MEASURES]
    rows.append([arm, *shown, f'{np.mean(entropies):.2f}'])
  shown = [arms.shown(best[name]) for name in MEASURES]
  rows.append([f'base, best of {BEST_OF}', *shown, ''])
  print(markdown_table(('', *MEASURES.values(), 'entropy of codes'), rows))
  for name in ('undamaged', 'second.plausibility'):
    print(f'\nPredictions by {MEASURES[name]}:\n')
    print(markdown_table(('', 'difference', ''), arms.verdicts(values[name])))
  pool = Pool(
    *(
      np.concatenate([read(scratch / f'seed{s}/pool', GROUP, name) for s in seeds])
      for name in ('rahf.plausibility', 'undamaged')
    )
  )
  shares = np.array([1, 0.5, 0.25, 0.1, 0.05, 0.02])
  print('\nImages of the pool that RAHF finds most plausible:\n')
  print(
    markdown_table(
      ('share kept', 'RAHF', 'undamaged, template judge'),
      [[f'{s:.0%}', f'{a:.3f}', f'{b:.3f}'] for s, a, b in arms.goodhart(pool, shares)],
    )
  )


def best_of(folder: pathlib.Path, group: int, name: str) -> np.ndarray:
  """Returns a measure of the image of each prompt that RAHF finds most plausible."""
  chosen = read(folder, group, 'rahf.plausibility').argmax(1)
  return read(folder, group, name)[np.arange(len(chosen)), chosen]


if __name__ == '__main__':
  sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # For configs/.
  app.run(main)
