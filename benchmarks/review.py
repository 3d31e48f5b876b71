"""Times monitoring: norms and scalars in training, images and reports in evaluation.

  python benchmarks/review.py [--config=configs/quickstart.py] [--samples=955]

Times the training step with and without module norms, alternately, and writing its
scalars for TensorBoard, which happens every config.train.log_every steps. Then times
panels, thumbnails and the report page of an evaluation, on smooth noise at 512 px.
"""

import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from unittest import mock

import jax
import machine
import numpy as np
from absl import app, flags
from etils import epath
from ml_collections import ConfigDict, config_flags
from PIL import Image

from rahf.data import schema
from rahf.data.images import codec
from rahf.evaluation import samples
from rahf.evaluation.score_example import ExampleLabels, score
from rahf.reports import html_report
from rahf.reports.gallery import Gallery
from rahf.reports.tensorboard import TensorBoardWriter
from rahf.runtime import sharding
from rahf.tasks import make_task
from rahf.training.batch_spec import random_batch
from rahf.training.setup import set_up

_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/quickstart.py', 'What to train.'
)
_STEPS = flags.DEFINE_integer('steps', 30, 'Timed steps of each kind.')
_SAMPLES = flags.DEFINE_integer('samples', 955, 'Samples on the report page.')
SIDE = 512
WORDS = ('a', 'red', 'cat', 'sits', 'on', 'two', 'chairs', 'in', 'the', 'sun')


def jit_step(setup):
  return jax.jit(setup.make_train_step(), **setup.jit_options)


def main(argv: list[str]) -> None:
  del argv
  config = _CONFIG.value
  print(f'{machine.processor()}; {machine.accelerator()}')
  with tempfile.TemporaryDirectory() as folder:
    measure_training(config, pathlib.Path(folder))
    measure_evaluation(epath.Path(folder))


def measure_training(config: ConfigDict, folder: pathlib.Path) -> None:
  """Prints the overhead of norms and scalars per step."""
  setup = set_up(make_task(config))
  batch = sharding.put_batch(random_batch(config, config.train.batch_size), setup.mesh)
  key = jax.random.key(0)
  with jax.set_mesh(setup.mesh):
    states = [setup.states.make(config.seed) for _ in range(2)]
    steps = [jit_step(setup).lower(states[0], batch, key).compile()]
    with mock.patch('rahf.training.train_step.norms', return_value={}):
      steps.append(jit_step(setup).lower(states[0], batch, key).compile())
    seconds = [[], []]
    for turn in range(_STEPS.value + 3):
      for which, step in enumerate(steps):
        start = time.perf_counter()
        states[which], found = step(states[which], batch, key)
        jax.block_until_ready(found)
        if turn >= 3:
          seconds[which].append(time.perf_counter() - start)
        metrics = found if which == 0 else metrics
  with_norms, without = map(statistics.median, seconds)
  _line('step with norms of modules', with_norms)
  _line('step without', without)
  print(f'{"ratio":36}{with_norms / without:10.4f}')
  values = {name: float(value) for name, value in metrics.items()}
  with TensorBoardWriter(folder) as board:
    written = _time(lambda i: board.scalars(i, 'train', values), 30)
  _line(f'writing {len(values)} scalars', written)
  share = written / config.train.log_every / with_norms
  print(f'{"  of the steps between":36}{share:10.4%}')


def measure_evaluation(folder: epath.Path) -> None:
  """Prints the time for panels, thumbnails, intervals and the report page."""
  examples = [_example(number) for number in range(16)]
  scored = [score(*example) for example in examples]
  count = _SAMPLES.value

  def keep(gallery: Gallery, number: int) -> None:
    gallery.add(*examples[number % 16], scored[number % 16])

  panels, pages = Gallery(panels=range(16)), Gallery(thumbnails=count)
  _line('panel', _time(lambda i: keep(panels, i), 16))
  start = time.perf_counter()
  for number in range(count):
    keep(pages, number)
  _line('thumbnail', (time.perf_counter() - start) / count)
  found = [scored[number % 16]._replace(uid=f'{number}') for number in range(count)]
  start = time.perf_counter()
  metrics, bounds = samples.metrics(found), samples.intervals(found)
  _line(f'intervals of {count} samples', time.perf_counter() - start)
  path = folder / 'page.html'
  start = time.perf_counter()
  html_report.write(path, found, pages.thumbnails, metrics, bounds, title='benchmark')
  _line(f'page of {count} samples', time.perf_counter() - start)
  print(f'{"  its size":36}{path.stat().length / 1e6:10.4f} MB')


def _example(number: int) -> tuple[schema.Record, ExampleLabels]:
  rng = np.random.default_rng(number)
  noise = rng.integers(0, 256, (SIDE // 16, SIDE // 16, 3), dtype=np.uint8)
  image = np.asarray(Image.fromarray(noise).resize((SIDE, SIDE)))
  y, x = np.mgrid[:SIDE, :SIDE] / SIDE
  centres = rng.random((4, 2))
  maps = [np.exp(-40 * ((y - a) ** 2 + (x - b) ** 2)) for a, b in centres]
  true = [codec.encode_map(heat.astype(np.float32)) for heat in maps[:2]]
  labels = tuple(rng.integers(0, 2, len(WORDS)).tolist())
  record = schema.Record(
    f'{number}',
    codec.encode_png(image),
    ' '.join(WORDS),
    WORDS,
    labels,
    tuple(rng.random(4).tolist()),
    *true,
  )
  return record, ExampleLabels(
    np.array(maps[2:], np.float32),
    rng.random(4),
    labels,
    p_misaligned=rng.random(len(WORDS)),
  )


def _time(function: Callable[[int], None], times: int) -> float:
  """Returns the median seconds of a call."""
  seconds = []
  for number in range(times):
    start = time.perf_counter()
    function(number)
    seconds.append(time.perf_counter() - start)
  return statistics.median(seconds)


def _line(name: str, seconds: float) -> None:
  print(f'{name:36}{1e3 * seconds:10.3f} ms')


if __name__ == '__main__':
  app.run(main)
