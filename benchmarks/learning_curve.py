"""What captions are worth when few images have labels: learning curves of RAHF.

  python benchmarks/learning_curve.py [--labels=500,2000,8000] [--seeds=3]

All runs train a model of the quickstart's size on the same labelled shapes for equally
many steps with equally many labelled images in each; those of fewer labels are a part
of those of more. An arm is

  labels      trained on them alone
  pretrained  the same, after a training on captions of images without defects
  mixture     as many captions in each batch beside them, whose tokens share the mean of
              the loss with the keywords

Predicted: captions help most with the fewest labels, and where words must be found in
the image (misalignment, alignment, keywords); hardly where damage must be found, which
no caption mentions. Prints --metrics of the test split with its 95 % interval over
seeds (Student's t), and the paired difference from `labels`; draws them in
SCRATCH/curves.png. Finished runs are kept, so that the same command continues.
"""

import json
import pathlib
import sys
from typing import NamedTuple

import machine
import numpy as np
from absl import app, flags, logging
from etils import epath
from ml_collections import ConfigDict
from PIL import Image
from scipy import stats

from rahf.drawing import charts
from rahf.drawing.charts import Curve
from rahf.drawing.markdown import markdown_table
from rahf.export import export
from rahf.runtime.preemption import Interruption
from rahf.train import train

ARMS = ('labels', 'pretrained', 'mixture')
CAPTIONS = 'shapes_captions'

_LABELS = flags.DEFINE_list('labels', ['500', '2000', '8000'], 'Labelled images.')
_SEEDS = flags.DEFINE_integer('seeds', 3, 'Repetitions.', lower_bound=2)
_ARMS = flags.DEFINE_multi_enum('arm', [*ARMS], ARMS, 'Repeat it; labels is needed.')
flags.register_validator('arm', lambda arms: 'labels' in arms, 'labels is needed')
_STEPS = flags.DEFINE_integer('steps', 1200, 'Of each run.', lower_bound=3)
_CAPTION_STEPS = flags.DEFINE_integer(
  'caption_steps', 2000, 'Of the training on captions.', lower_bound=3
)
_TRAIN = flags.DEFINE_integer(
  'train', 20_000, 'Shapes to generate, with labels and with captions.', lower_bound=1
)
_METRICS = flags.DEFINE_list(
  'metrics',
  [
    *('implausibility/cc', 'misalignment/cc', 'plausibility/srcc', 'alignment/srcc'),
    'keywords/f1',
  ],
  'Of the test split, as in WORKDIR/eval/test-STEP.json.',
)
_SCRATCH = flags.DEFINE_string('scratch', 'runs/learning_curve', 'Folder of the runs.')


class Estimate(NamedTuple):
  """A mean with the ends of its interval."""

  mean: float
  low: float
  high: float


def main(argv: list[str]) -> None:
  """Trains what is missing, and reports."""
  del argv
  logging.set_verbosity(logging.WARNING)  # Orbax logs every step.
  print(f'{machine.processor()}; {machine.accelerator()}', flush=True)
  scratch = pathlib.Path(_SCRATCH.value).absolute()
  labels = [int(number) for number in _LABELS.value]
  found = {
    (arm, number): [run(scratch, arm, number, seed) for seed in range(_SEEDS.value)]
    for number in labels
    for arm in _ARMS.value
  }
  report(scratch, labels, found)


def run(scratch: pathlib.Path, arm: str, labels: int, seed: int) -> dict[str, float]:
  """Trains, or continues; returns the metrics of the test split."""
  config = base_config(seed, _STEPS.value)
  config.data.limit, config.data.limit_seed = labels, seed
  if arm == 'pretrained':
    config.init.rahf = str(pretrain(scratch / f'captions-{seed}', seed))
  elif arm == 'mixture':
    config.data.mixture = (('shapes', 1.0), (CAPTIONS, 1.0))
    config.data.captions = (CAPTIONS,)
    config.train.batch_size *= 2
  workdir = scratch / f'{arm}-{labels}-{seed}'
  metrics = workdir / f'eval/test-{_STEPS.value}.json'
  if not metrics.exists():
    train(config, epath.Path(workdir), Interruption())
  return json.loads(metrics.read_text())


def pretrain(workdir: pathlib.Path, seed: int) -> pathlib.Path:
  """Trains on captions, or continues, and exports; returns the export."""
  from configs import pretrain_captions

  if not (workdir / 'export').exists():
    steps = _CAPTION_STEPS.value
    config = pretrain_captions.get_config('shapes')
    config.seed = seed
    config.data.shapes.train = _TRAIN.value
    config.optimizer.update(warmup_steps=steps // 10, cooldown_steps=steps // 3)
    config.train.update(steps=steps, checkpoint_every=steps)
    config.eval.every = steps
    interruption = Interruption()
    train(config, epath.Path(workdir), interruption)
    export(config, epath.Path(workdir), interruption)
  return workdir / 'export'


def base_config(seed: int, steps: int) -> ConfigDict:
  """Returns the quickstart, with a decoder that sees the image as captions need it."""
  from configs import quickstart

  config = quickstart.get_config()
  config.seed = seed
  config.data.shapes.train = _TRAIN.value
  config.model.decoder_sees_image = True
  config.optimizer.update(warmup_steps=steps // 8, cooldown_steps=steps // 3)
  config.train.update(steps=steps, checkpoint_every=steps)
  config.eval.every = steps + 1
  return config


def estimate(values: np.ndarray) -> Estimate:
  """Returns the mean of few values, with its 95 % interval by Student's t."""
  around = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
  return Estimate(*(float(values.mean() + sign * around) for sign in (0, -1, 1)))


def report(
  scratch: pathlib.Path,
  labels: list[int],
  found: dict[tuple[str, int], list[dict[str, float]]],
) -> None:
  """Prints tables of the metrics, and draws them."""
  arms = _ARMS.value
  others = [arm for arm in arms if arm != 'labels']
  panels = {}
  for metric in _METRICS.value:
    values = {
      key: np.array([one[metric] for one in runs], float) for key, runs in found.items()
    }
    rows = []
    for number in labels:
      row = [f'{number:,}', *(shown(estimate(values[arm, number])) for arm in arms)]
      for arm in others:
        row.append(shown(estimate(values[arm, number] - values['labels', number])))
      rows.append(row)
    differences = (f'{arm} - labels' for arm in others)
    print(f'\n{markdown_table((metric, *arms, *differences), rows)}', flush=True)
    panels[metric] = {arm: curve(labels, values, arm) for arm in arms}
  picture = Image.fromarray(charts.curves(panels, 'labelled images'))
  picture.save(scratch / 'curves.png')
  print(f'\nDrawn: {scratch / "curves.png"}')


def curve(
  labels: list[int], values: dict[tuple[str, int], np.ndarray], arm: str
) -> Curve:
  """Returns the curve of an arm."""
  estimates = [estimate(values[arm, number]) for number in labels]
  return Curve(labels, *zip(*estimates, strict=True))


def shown(one: Estimate) -> str:
  """Returns an estimate as text."""
  return f'{one.mean:.3f} ({one.low:.3f} to {one.high:.3f})'


if __name__ == '__main__':
  sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # For configs/.
  app.run(main)
