"""How long commands take to start with an empty and with a filled compilation cache.

  python benchmarks/startup.py [--repeats=3]

Each measurement is a process of its own: the quickstart's training up to its first
step, an evaluation of a few images, and `rahf.load` up to the first score. Each has a
cache of its own, which is empty at the beginning of every round. Prints medians in
seconds.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import machine
from absl import app, flags

from rahf.drawing.markdown import markdown_table

_REPEATS = flags.DEFINE_integer('repeats', 3, 'Rounds.', lower_bound=1)
ROOT = pathlib.Path(__file__).parents[1]
SMALL = (
  '--config=configs/quickstart.py',
  *(f'--config.data.shapes.{split}=50' for split in ('train', 'dev', 'test')),
  '--config.train.steps=1',
  '--config.train.log_every=1',
)
SCORE = """
import sys
import numpy as np
import rahf
model = rahf.load(sys.argv[1])
print(model.score(np.zeros((64, 64, 3), np.uint8), 'a red circle')[0].scores)
"""


def main(argv: list[str]) -> None:
  """Measures all in turn, and prints a table."""
  del argv
  print(machine.processor(), flush=True)
  seconds: dict[tuple[str, str], list[float]] = {}
  with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch)
    data = (*SMALL, f'--config.data.dir={folder}/data')
    run(folder / 'prepared', *data, f'--workdir={folder}/run')
    run(folder / 'prepared', *data, f'--workdir={folder}/run', '--mode=export')
    evaluation = *data, f'--workdir={folder}/run', '--mode=eval'
    for number in range(_REPEATS.value):
      training, evaluating, scoring = (
        folder / f'cache-{number}-{name}' for name in ('train', 'eval', 'score')
      )
      for state in ('empty', 'filled'):
        workdir = f'--workdir={folder}/{number}-{state}'
        for name, took in (
          (
            'training, to the first step',
            run(training, *data, workdir, until='step 1/'),
          ),
          ('evaluation of 50 images', run(evaluating, *evaluation)),
          ('rahf.load, to the first score', score(scoring, folder / 'run/export')),
        ):
          seconds.setdefault((name, state), []).append(took)
  medians = {key: statistics.median(values) for key, values in seconds.items()}
  rows = [
    [name, *(f'{medians[name, state]:.1f}' for state in ('empty', 'filled'))]
    for name in dict.fromkeys(name for name, _ in medians)
  ]
  print(markdown_table(('seconds', 'empty cache', 'filled'), rows))


def run(cache: pathlib.Path, *arguments: str, until: str = '') -> float:
  """Runs `rahf.main`; returns the seconds until it ends, or prints a text."""
  return measure(cache, [sys.executable, '-u', '-m', 'rahf.main', *arguments], until)


def score(cache: pathlib.Path, model: pathlib.Path) -> float:
  """Loads a model and scores one image; returns the seconds."""
  return measure(cache, [sys.executable, '-c', SCORE, str(model)])


def measure(cache: pathlib.Path, command: list[str], until: str = '') -> float:
  """Returns the seconds until a command ends, or prints a text."""
  kept = {k: v for k, v in os.environ.items() if not k.startswith('JAX_')}
  began, found = time.perf_counter(), None
  process = subprocess.Popen(
    command,
    cwd=ROOT,
    env=kept | {'XDG_CACHE_HOME': str(cache), 'JAX_PLATFORMS': 'cpu'},
    stdout=subprocess.PIPE,
    text=True,
  )
  for line in process.stdout:
    if until and until in line and found is None:
      found = time.perf_counter() - began
  if process.wait():
    raise SystemExit(f'{" ".join(command)} failed')
  return found or time.perf_counter() - began


if __name__ == '__main__':
  app.run(main)
