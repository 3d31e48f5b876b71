"""Whenever a training process is killed, the same command ends like an unbroken run."""

import collections
import pathlib
import signal
import subprocess
import time

import numpy as np

import runs
from rahf import locks


def phase(workdir: pathlib.Path, printed: str, begun: float) -> str:
  """Says what a process, begun then, was at when it was killed."""
  unfinished = workdir.glob('checkpoints/*tmp*')
  if any(path.stat().st_mtime > begun for path in unfinished):
    return 'save'
  lines = printed.splitlines()
  if not any(line.startswith('Data:') for line in lines):
    return 'start-up'
  steps = [line for line in lines if line.startswith('step ')]
  if not steps:
    return 'compile'
  # Evaluations follow steps 2 and 4.
  return 'evaluation' if steps[-1].startswith(('step 2/', 'step 4/')) else 'step'


def test_random_kills(trained, data_dir, tmp_path, long, record_property):
  """Each restart goes on from the newest checkpoint that restores."""
  seed = time.time_ns()
  print(f'seed {seed}')
  rng = np.random.default_rng(seed)
  start = time.monotonic()
  whole = runs.start_tiny(data_dir, f'--workdir={tmp_path}/whole')
  _, errors = whole.communicate(timeout=300)
  assert whole.returncode == 0, errors
  duration = time.monotonic() - start
  phases = collections.Counter()
  number, resumed = 0, False
  while phases.total() < (50 if long else 5):
    workdir = tmp_path / str(number)
    begun = time.time()
    process = runs.start_tiny(data_dir, f'--workdir={workdir}')
    try:
      # A resumed run is shorter; one that ends is compared, and another begins.
      printed, errors = process.communicate(timeout=rng.uniform(0, duration))
    except subprocess.TimeoutExpired:
      process.kill()
      printed, _ = process.communicate(timeout=60)
      assert process.returncode == -signal.SIGKILL
      phases[phase(workdir, printed, begun)] += 1
      resumed = True
      continue
    assert process.returncode == 0, errors
    runs.assert_same_run(trained, workdir)
    number += resumed
    resumed = False
  process = runs.start_tiny(data_dir, f'--workdir={workdir}')
  _, errors = process.communicate(timeout=300)
  assert process.returncode == 0, errors
  runs.assert_same_run(trained, workdir)
  record_property('killed in', str(dict(phases)))
  print(f'\nkilled in {dict(phases)}, {number + 1} runs')


def test_a_second_run_in_a_work_directory_is_refused(data_dir, tmp_path):
  with locks.alone(tmp_path / 'run'):
    second = runs.start_tiny(data_dir, f'--workdir={tmp_path}/run')
    _, errors = second.communicate(timeout=200)
  assert second.returncode == 2
  assert 'another process is writing to' in errors
  assert 'Traceback' not in errors
  assert not (tmp_path / 'run/config.json').exists()
