"""Trains RAHF and the paper's baselines on shapes for equal time, in one table.

  python benchmarks/baselines.py [--minutes=4] [--scratch=runs/baselines]

A CLIP is trained by contrast first, for as long as each of the others. Each model's
steps follow from a short run in which a step is timed; compiling and evaluating do not
count. Runs that are complete are not repeated. Ends with `python -m rahf.compare`.
"""

import json
import pathlib
import shlex
import subprocess
import sys
import time

import machine
from absl import app, flags

ROOT = pathlib.Path(__file__).parents[1]
TIMED_STEPS = 60
# Name of the run, config, and whether it is trained. CLIP stands for the directory.
RAHF = ('rahf', 'configs/quickstart.py', True)
CONTRAST = ('clip_contrast', 'configs/baselines/shapes_clip.py')
BASELINES = [
  ('resnet_scores', 'configs/baselines/shapes.py:resnet_scores', True),
  ('resnet_maps', 'configs/baselines/shapes.py:resnet_maps', True),
  ('clip_scores', 'configs/baselines/shapes.py:clip_scores,CLIP', True),
  ('clip_zero_shot', 'configs/baselines/shapes.py:clip_zero_shot,CLIP', False),
  *(
    (f'clip_{kind}', f'configs/baselines/shapes.py:clip_gradient,CLIP#{kind}', False)
    for kind in ('input_gradient', 'signed', 'grad_cam', 'grad_eclip')
  ),
  ('clip_words', 'configs/baselines/shapes.py:clip_words,CLIP', False),
]

_MINUTES = flags.DEFINE_float('minutes', 4, 'Training time of each model.')
_SCRATCH = flags.DEFINE_string('scratch', 'runs/baselines', 'Folder of the runs.')
_DATA = flags.DEFINE_string('data', 'data', 'Folder of the data, as config.data.dir.')


def main(argv: list[str]) -> None:
  """Runs everything."""
  del argv
  print(f'{machine.processor()}; {machine.accelerator()}', flush=True)
  scratch = pathlib.Path(_SCRATCH.value).absolute()
  scratch.mkdir(parents=True, exist_ok=True)
  train(scratch, *CONTRAST)
  clip = scratch / 'clip_contrast' / 'export'
  if not clip.exists():
    command(scratch / 'clip_contrast', CONTRAST[1], ['--mode=export'])
  for name, config, trains in (RAHF, *BASELINES):
    config, _, gradient = config.replace('CLIP', str(clip)).partition('#')
    more = [f'--config.baseline.gradient={gradient}'] if gradient else []
    if trains:
      train(scratch, name, config)
    elif not any((scratch / name).glob('eval/test-*.md')):
      command(scratch / name, config, ['--mode=eval', *more])
  names = [RAHF[0], *(name for name, _, _ in BASELINES)]
  runs = [str(scratch / name) for name in names]
  subprocess.run(
    [sys.executable, '-m', 'rahf.compare', *runs, f'--out={scratch}/comparison'],
    cwd=ROOT,
    check=True,
  )


def train(scratch: pathlib.Path, name: str, config: str) -> None:
  """Trains for the time of the flag, unless that has been done."""
  workdir = scratch / name
  if any(workdir.glob('eval/test-*.md')):
    return
  steps = json_file(scratch / f'{name}.json', lambda: measure(scratch, name, config))
  shape = schedule(steps['steps'])
  start = time.perf_counter()
  command(workdir, config, shape)
  print(
    f'{name}: {steps["steps"]} steps of {steps["seconds"]:.3f} s; with evaluation '
    f'{time.perf_counter() - start:.0f} s',
    flush=True,
  )


def json_file(path: pathlib.Path, make) -> dict:
  """Reads a file, or makes and writes it: a run must resume with the same steps."""
  if not path.exists():
    path.write_text(json.dumps(make()))
  return json.loads(path.read_text())


def measure(scratch: pathlib.Path, name: str, config: str) -> dict[str, float]:
  """Returns the seconds of a step, and how many fit into the time."""
  workdir = scratch / f'{name}_timed'
  every = TIMED_STEPS // 3
  command(
    workdir,
    config,
    [
      f'--config.train.steps={TIMED_STEPS}',
      f'--config.train.log_every={every}',
      '--config.optimizer.warmup_steps=0',
      '--config.optimizer.cooldown_steps=0',
      '--config.eval.split=dev',
      '--config.eval.final_split=dev',
      f'--config.eval.every={TIMED_STEPS}',
    ],
  )
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  seconds = min(row['step_seconds'] for row in rows if 'step_seconds' in row)
  return {'seconds': seconds, 'steps': round(60 * _MINUTES.value / seconds)}


def schedule(steps: int) -> list[str]:
  """Returns flags: 1/10 of the steps to warm up, 1/3 to cool down."""
  return [
    f'--config.train.steps={steps}',
    f'--config.train.checkpoint_every={steps}',
    f'--config.eval.every={steps}',
    f'--config.optimizer.warmup_steps={steps // 10}',
    f'--config.optimizer.cooldown_steps={steps // 3}',
  ]


def command(workdir: pathlib.Path, config: str, more: list[str]) -> None:
  """Runs python -m rahf.main; its output goes to a file next to the work directory."""
  arguments = [f'--config={config}', f'--workdir={workdir}']
  arguments += [f'--config.data.dir={_DATA.value}', *more]
  if '--mode=export' in more:
    # The steps are part of the run's config.
    steps = json.loads((workdir.parent / f'{workdir.name}.json').read_text())
    arguments += schedule(steps['steps'])
  print(shlex.join(['python -m rahf.main', *arguments]), flush=True)
  with (workdir.parent / f'{workdir.name}.log').open('a') as log:
    subprocess.run(
      [sys.executable, '-m', 'rahf.main', *arguments],
      cwd=ROOT,
      stdout=log,
      stderr=subprocess.STDOUT,
      check=True,
    )


if __name__ == '__main__':
  app.run(main)
