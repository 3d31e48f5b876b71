"""Killed at any time, a run can be resumed with the result of an uninterrupted run."""

import collections
import pathlib
import signal
import subprocess
import time

import improving
import numpy as np
import pytest
from etils import epath

import runs
import tiny_muse
from rahf.fileio import locks
from rahf.workdir.ownership import complete_steps


def phase(workdir: pathlib.Path, printed: str, begun: float) -> str:
  """Returns the phase in which a process that started at `begun` was killed."""
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


def kill(process, workdir):
  process.kill()
  printed, _ = process.communicate(timeout=60)
  assert process.returncode == -signal.SIGKILL
  return printed


def stop(process, workdir):
  """Sends SIGTERM, which must be handled in time after the first step."""
  stepped = (workdir / 'metrics.jsonl').exists()
  process.terminate()
  printed, errors = process.communicate(timeout=30 if stepped else 300)
  assert 'Traceback' not in errors
  if any(line.startswith('step ') for line in printed.splitlines()):
    # Unless it has just finished.
    assert 'Interrupted after step' in printed or 'Written to' in printed
    assert process.returncode == 0, errors
  else:
    # During start-up, Python does not handle SIGTERM yet.
    assert process.returncode in (0, -signal.SIGTERM), errors
  return printed


def start(data_dir, workdir):
  """Starts a run that saves every step and keeps only the newest checkpoint."""
  return runs.start_tiny(
    data_dir,
    f'--workdir={workdir}',
    '--config.train.checkpoint_every=1',
    '--config.train.keep_checkpoints=1',
  )


@pytest.mark.parametrize(('end', 'few', 'many'), [(kill, 2, 50), (stop, 0, 20)])
def test_random_interruptions(
  trained, data_dir, tmp_path, long, record_property, end, few, many
):
  """Each restart resumes from the newest checkpoint, and there always is one."""
  if not (few or long):
    pytest.skip('--long; one stop is in tests/test_train.py')
  seed = time.time_ns()
  print(f'seed {seed}')
  rng = np.random.default_rng(seed)
  begun = time.monotonic()
  whole = start(data_dir, tmp_path / 'whole')
  runs.wait_for(whole, 'Written to')
  # Training is done; it only has to exit.
  whole.terminate()
  _, errors = whole.communicate(timeout=300)
  assert whole.returncode == 0, errors
  duration = time.monotonic() - begun
  phases = collections.Counter()
  # The newest checkpoint of the run to resume, 0 before its first.
  number, newest = 0, None
  while newest is not None or phases.total() < (many if long else few):
    workdir = tmp_path / str(number)
    begun, start_time = time.time(), time.monotonic()
    process = start(data_dir, workdir)
    # After enough interruptions, the last run may finish.
    done = phases.total() >= (many if long else few)
    try:
      # A resumed run is shorter; one that finishes is compared, and the next starts.
      printed, errors = process.communicate(
        timeout=300 if done else rng.uniform(0, duration)
      )
    except subprocess.TimeoutExpired:
      assert not done
      phases[phase(workdir, end(process, workdir), begun)] += 1
      found = max(complete_steps(epath.Path(workdir)), default=0)
      assert found >= (newest or 0)
      newest = found
      continue
    assert process.returncode == 0, errors
    assert not newest or f'at step {newest}' in printed
    runs.assert_same_run(trained, workdir)
    if newest is None:
      # Later runs are faster, with compiled programs cached.
      duration = time.monotonic() - start_time
    number, newest = number + 1, None
  record_property('ended in', str(dict(phases)))
  print(f'\nended in {dict(phases)}, {number} runs')


def finish(processes):
  for process in processes:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors


def test_one_of_two_processes_is_killed(data_dir, tmp_path, long):
  """The other exits; restarted, both finish like an uninterrupted run."""
  if not long:
    pytest.skip('--long; one such kill is in tests/runtime/test_distributed.py')
  seed = time.time_ns()
  print(f'seed {seed}')
  rng = np.random.default_rng(seed)
  begun = time.monotonic()
  finish(runs.start_two(data_dir, tmp_path / 'whole'))
  duration = time.monotonic() - begun
  kills = number = 0
  broken = False
  while broken or kills < 5:
    workdir = tmp_path / str(number)
    processes = runs.start_two(data_dir, workdir)
    lost = int(rng.integers(2))
    try:
      if kills < 5:
        processes[lost].communicate(timeout=rng.uniform(0, duration))
    except subprocess.TimeoutExpired:
      kill(processes[lost], workdir)
      kills, broken = kills + 1, True
      # JAX waits 300 s for a process that never joined.
      _, errors = processes[1 - lost].communicate(timeout=400)
      assert processes[1 - lost].returncode not in (0, None), errors
      continue
    # A resumed run is shorter; one that finishes is compared, and the next starts.
    finish(processes)
    runs.assert_same_run(tmp_path / 'whole', workdir)
    number, broken = number + 1, False
  print(f'\n{kills} kills, {number} runs')


def test_a_second_run_in_a_work_directory_is_refused(data_dir, tmp_path):
  with locks.locked(tmp_path / 'run'):
    second = runs.start_tiny(data_dir, f'--workdir={tmp_path}/run')
    _, errors = second.communicate(timeout=200)
  assert second.returncode == 2
  assert 'another process is writing to' in errors
  assert 'Traceback' not in errors
  assert not (tmp_path / 'run/config.json').exists()


def test_generating_images_is_killed(tmp_path):
  """The same command continues: each image is the one of an uninterrupted run."""
  model, prompts = tmp_path / 'model', tmp_path / 'prompts.txt'
  tiny_muse.write(model)
  prompts.write_text('a red circle\na blue cross\n')
  arguments = ('--mode=generate', f'--model={model}', f'--input={prompts}')
  arguments += ('--images_per_prompt=150', '--batch_size=4')

  def start_into(name: str) -> subprocess.Popen:
    return runs.start(*arguments, f'--output={tmp_path / name}')

  whole, killed = start_into('whole'), start_into('killed')
  images = tmp_path / 'killed' / 'images'
  while killed.poll() is None and len([*images.glob('*.png')]) < 20:
    time.sleep(0.02)
  kill(killed, images.parent)
  drawn = {path.name: path.stat().st_mtime_ns for path in images.glob('*.png')}
  assert 0 < len(drawn) < 300
  assert not (tmp_path / 'killed' / 'images.csv').exists()
  finish([start_into('killed'), whole])
  for path in (tmp_path / 'whole' / 'images').iterdir():
    assert path.read_bytes() == (images / path.name).read_bytes(), path.name
  assert len([*images.glob('*.png')]) == 300
  # What was finished is not drawn again.
  assert all((images / name).stat().st_mtime_ns == drawn[name] for name in drawn)


@pytest.fixture(scope='module')
def models(tmp_path_factory):
  """A Muse, a RAHF, prompts, and images with prompts."""
  folder = tmp_path_factory.mktemp('models')
  improving.write_models(folder, 40)
  return folder


@pytest.mark.parametrize(
  ('verb', 'source', 'options'),
  [
    ('guide', 'prompts.txt', ['--strengths', '2', '--batch_size=2']),
    ('inpaint', 'images', ['--threshold=0.4', '--rounds=2']),
    ('reprompt', 'prompts.txt', ['--words=all']),
  ],
)
def test_improving_is_killed(models, tmp_path, long, verb, source, options):
  """The same command continues; what was finished is not done again."""
  if verb != 'guide' and not long:
    pytest.skip('--long; all of these write their results in the same way')

  def start_into(name: str) -> subprocess.Popen:
    return improving.start(models, verb, source, *options, f'--out={tmp_path / name}')

  killed = start_into('killed')
  records = tmp_path / 'killed' / 'records'
  while killed.poll() is None and len([*records.glob('*.json')]) < 3:
    time.sleep(0.02)
  kill(killed, records.parent)
  done = {path.name: path.stat().st_mtime_ns for path in records.glob('*.json')}
  assert 0 < len(done) < 40
  finish([start_into('killed')])
  finish([start_into('whole')])
  whole, resumed = (
    {
      path.relative_to(tmp_path / name): path.read_bytes()
      for path in (tmp_path / name).rglob('[!.]*.*')  # A kill may leave a hidden file.
    }
    for name in ('whole', 'killed')
  )
  assert whole == resumed
  assert all((records / name).stat().st_mtime_ns == done[name] for name in done)
