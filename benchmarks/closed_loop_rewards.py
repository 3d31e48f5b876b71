"""Is a reward for each token better than one for the image? An experiment.

  python benchmarks/closed_loop_rewards.py GENERATOR [--scratch=runs/closed_loop]

GENERATOR is the export of `configs/muse_shapes.py:generator`; the two RAHF are those of
`closed_loop.py`, which comes first. The generator is trained by policy gradients, as
`python -m rahf.improve reward-train` does, on RAHF's plausibility:

  scalar    all tokens of an image get the same reward
  dense     tokens get less of it where RAHF's heatmap of implausibility is high
  shuffled  the same, with the heatmap of another image

for equally many steps with the same prompts and noise, several times with other seeds.
Training draws in few steps, to be faster; the test in as many as GENERATOR itself. 200
new prompts with shared noise are judged by the template judge (share of undamaged
images) and by the second RAHF.

Predicted: dense > scalar > base, and shuffled no better than scalar.
"""

import os
import pathlib

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import closed_loop_arms as arms
import closed_loop_common as common
import machine
import numpy as np
from absl import app, flags, logging
from tqdm import tqdm

from rahf.drawing.markdown import markdown_table
from rahf.inference.generator_directory import load_generator, read_config
from rahf.learning.reward_train_command import reward_config

_SEEDS = flags.DEFINE_integer('seeds', 3, 'Repetitions.', lower_bound=1)
_STEPS = flags.DEFINE_integer('steps', 60, 'Of training.', lower_bound=1)
_TESTS = flags.DEFINE_integer('tests', 200, 'Prompts to test with.', lower_bound=4)
_DENSE = flags.DEFINE_float('dense', 5, 'Weight of the heatmap.')
_RATE = flags.DEFINE_float('learning_rate', 1e-4, 'Of the training.')
_DRAWING = flags.DEFINE_integer(
  'sampling_steps', 8, 'In which training draws an image.', lower_bound=1
)
PROMPTS = 500
ARMS = ('base', 'scalar', 'dense', 'shuffled')
MEASURES = ('undamaged', 'second.plausibility', 'rahf.plausibility', 'words')


def main(argv: list[str]) -> None:
  """Trains what is missing, and prints the tables."""
  logging.set_verbosity(logging.WARNING)
  generator = pathlib.Path(argv[1]).absolute()
  print(f'{machine.processor()}; {machine.accelerator()}', flush=True)
  folder = common.scratch() / 'rewards'
  values = {arm: [] for arm in ARMS}
  for seed in range(_SEEDS.value):
    for arm in ARMS:
      base = arm == 'base'  # Which no seed changes.
      place = folder / (arm if base else f'seed{seed}/{arm}')
      model = generator if base else tuned(place, arm, generator, seed)
      tested = common.done(
        place / 'test', lambda to, model=model: test(to, model, generator)
      )
      with np.load(tested / 'found.npz') as file:
        values[arm].append({name: file[name] for name in file})
  report(values)


def tuned(folder: pathlib.Path, arm: str, generator: pathlib.Path, seed: int):
  """Trains one arm, or continues, and exports it; returns the export."""
  workdir = folder / 'run'
  if (workdir / 'export').exists():
    return workdir / 'export'
  folder.mkdir(parents=True, exist_ok=True)
  files = []
  for name, prompts_seed, count in (
    ('prompts', common.REWARD_SEED + 100 * seed, PROMPTS),
    ('eval_prompts', common.REWARD_SEED + 50, 20),
  ):
    files.append(folder / f'{name}.txt')
    prompts = [one.prompt.text for one in common.scenes(prompts_seed, count)]
    files[-1].write_text('\n'.join(dict.fromkeys(prompts)) + '\n')
  config = reward_config(str(generator), str(common.scorers()['rahf']))
  config.seed = seed
  config.sampling.steps = _DRAWING.value
  config.reward.update(
    prompts=str(files[0]),
    eval_prompts=str(files[1]),
    dense=0.0 if arm == 'scalar' else _DENSE.value,
    other_maps=arm == 'shuffled',
  )
  config.optimizer.update(
    learning_rate=_RATE.value, warmup_steps=min(5, _STEPS.value // 2)
  )
  config.train.update(steps=_STEPS.value, checkpoint_every=_STEPS.value)
  config.eval.every = _STEPS.value
  return common.run(config, workdir)


def test(folder: pathlib.Path, model: pathlib.Path, base: pathlib.Path) -> None:
  """Draws new prompts in the steps of `base`, and lets all judge the images."""
  requests = common.requests_to_test(_TESTS.value)
  steps = read_config(str(base)).sampling.steps
  muse = load_generator(model, rows=common.BATCH, sampling={'steps': steps})
  images = [*tqdm(muse.draw(requests), f'Drawing {folder.parent.name}', len(requests))]
  prompts = [one.prompt for one in requests]
  np.savez(folder / 'found.npz', **common.judge_all(images, prompts, common.scorers()))


def report(values: dict[str, list[dict[str, np.ndarray]]]) -> None:
  """Prints means over seeds and prompts, and what was predicted."""
  by_prompt = {
    arm: {
      name: np.stack([one[name].reshape(-1, common.NOISES).mean(1) for one in seeds])
      for name in MEASURES
    }
    for arm, seeds in values.items()
  }
  rows = [
    [arm, *(arms.shown(found[name]) for name in MEASURES)]
    for arm, found in by_prompt.items()
  ]
  print(markdown_table(('', *MEASURES), rows))
  print('\nPredictions (the last: none):\n')
  pairs = (
    ('scalar', 'base'),
    ('dense', 'scalar'),
    ('dense', 'shuffled'),
    ('shuffled', 'scalar'),
  )
  rows = [
    [
      f'{one} > {other}',
      *(
        arms.shown(by_prompt[one][name] - by_prompt[other][name], '+')
        for name in MEASURES[:2]
      ),
    ]
    for one, other in pairs
  ]
  print(markdown_table(('', *MEASURES[:2]), rows))


if __name__ == '__main__':
  app.run(main)
