"""Trains RAHF and the paper's baselines on shapes for equal time, in one table.

  python benchmarks/baselines.py [--minutes=4] [--scratch=runs/baselines]

A CLIP is trained by contrast first, for as long as each of the others. The number of
steps of each model follows from a short run in which a step is timed; compiling and
evaluating do not count. All steps are timed first, on a machine that should be idle;
the training that follows may share it. Runs that are complete are not repeated. Ends
with `python -m rahf.compare`.
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
  trained = [(name, config) for name, config, trains in (RAHF, *BASELINES) if trains]
  plan(scratch, *CONTRAST)
  timed_clip = export(scratch / f'{CONTRAST[0]}_timed', timing())
  for name, config in trained:
    plan(scratch, name, config.replace('CLIP', str(timed_clip)))
  steps = train(scratch, *CONTRAST)
  clip = export(scratch / CONTRAST[0], schedule(steps))
  for name, config in trained:
    train(scratch, name, config.replace('CLIP', str(clip)))
  for name, config, trains in BASELINES:
    if not trains and not complete(scratch / name):
      config, _, gradient = config.replace('CLIP', str(clip)).partition('#')
      more = [f'--config.baseline.gradient={gradient}'] if gradient else []
      command(scratch / name, config, ['--mode=eval', *more])
  names = [RAHF[0], *(name for name, _, _ in BASELINES)]
  runs = [str(scratch / name) for name in names]
  subprocess.run(
    [sys.executable, '-m', 'rahf.compare', *runs, f'--out={scratch}/comparison'],
    cwd=ROOT,
    check=True,
  )


def plan(scratch: pathlib.Path, name: str, config: str) -> dict[str, float]:
  """Returns the seconds of a step and the number of steps; measured only once.

  A run must resume with the same steps, so they are kept in a file.
  """
  path = scratch / f'{name}.json'
  if not path.exists():
    workdir = scratch / f'{name}_timed'
    command(workdir, config, timing())
    lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    seconds = min(row['step_seconds'] for row in rows if 'step_seconds' in row)
    steps = round(60 * _MINUTES.value / seconds)
    path.write_text(json.dumps({'seconds': seconds, 'steps': steps}))
  return json.loads(path.read_text())


def train(scratch: pathlib.Path, name: str, config: str) -> int:
  """Trains for the time of the flag, unless that has been done; returns the steps."""
  planned, workdir = plan(scratch, name, config), scratch / name
  if not complete(workdir):
    start = time.perf_counter()
    command(workdir, config, schedule(planned['steps']))
    print(
      f'{name}: {planned["steps"]} steps of {planned["seconds"]:.3f} s; with '
      f'evaluation {time.perf_counter() - start:.0f} s',
      flush=True,
    )
  return planned['steps']


def complete(workdir: pathlib.Path) -> bool:
  """Returns whether a run has its final evaluation."""
  return any(workdir.glob('eval/test-*.md'))


def export(workdir: pathlib.Path, settings: list[str]) -> pathlib.Path:
  """Exports a contrastive run, with the flags of its training; returns the folder."""
  folder = workdir / 'export'
  if not folder.exists():
    command(workdir, CONTRAST[1], ['--mode=export', *settings])
  return folder


def timing() -> list[str]:
  """Returns flags of a short run with three measurements of a step."""
  return [
    f'--config.train.steps={TIMED_STEPS}',
    f'--config.train.log_every={TIMED_STEPS // 3}',
    '--config.optimizer.warmup_steps=0',
    '--config.optimizer.cooldown_steps=0',
    '--config.eval.split=dev',
    '--config.eval.final_split=dev',
    f'--config.eval.every={TIMED_STEPS}',
  ]


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
