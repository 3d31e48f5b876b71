"""launch/remote: what runs on the machines that train."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from launch_sandbox import FLAGS, LAUNCH, Sandbox, wait_for


def attempt(sandbox: Sandbox, *flags: str) -> subprocess.Popen:
  path = LAUNCH / 'remote/attempt.py'
  return sandbox.start(sys.executable, path, '--workdir=gs://bucket/x', *flags)


@pytest.mark.parametrize('send', [os.kill, os.killpg], ids=['one', 'all'])
def test_an_attempt_that_is_stopped_saves_and_says_so(send, site):
  checkpoints = pathlib.Path(site.env['BUCKETS'], 'bucket/x/checkpoints')
  process = attempt(site)
  wait_for('True', lambda: str(checkpoints.exists()))
  send(process.pid, signal.SIGTERM)
  printed, errors = process.communicate(timeout=60)
  assert process.returncode == 42, errors
  assert 'saved' in printed
  process = attempt(site)
  process.communicate(timeout=60)
  assert process.returncode == 0


def test_an_attempt_passes_failures_on(site):
  process = attempt(site, '--fail=2')
  process.communicate(timeout=60)
  assert process.returncode == 2


@pytest.mark.parametrize(
  ('journal', 'status'),
  [
    ('{"step": 5, "split": "test", "loss/total": null}\n', 0),
    ('{"step": 5, "split": "test"}\n{"step": 5, "spl', 0),
    ('{"step": 5, "split": "dev"}\n{"step": 4, "split": "test"}\n', 1),
    ('{"step": 5, "split": "te', 1),
    (None, 1),
  ],
)
def test_finished(journal, status, site, tmp_path):
  workdir = tmp_path / 'run'
  workdir.mkdir()
  command = [sys.executable, LAUNCH / 'remote/finished.py', workdir]
  if journal is None:
    site.run(*command, status=1)
    (workdir / 'config.json').write_text('{}')
  else:
    settings = '{"train": {"steps": 5}, "eval": {"final_split": "test"}}'
    (workdir / 'config.json').write_text(settings)
    (workdir / 'metrics.jsonl').write_text(journal)
  site.run(*command, status=status)


@pytest.mark.parametrize(
  ('tasks', 'restarts', 'finished', 'status', 'requeued'),
  [
    (0, '0', True, 0, False),
    (0, '0', False, 0, True),
    (0, '3', False, 1, False),
    (134, '0', False, 0, True),
    (2, '0', False, 1, False),
    (2, '0', True, 1, False),
  ],
)
def test_a_part_under_slurm(tasks, restarts, finished, status, requeued, sandbox):
  sandbox.stub('srun', f'exit {tasks}')
  sandbox.stub('scontrol')
  sandbox.stub('python', f'exit {int(not finished)}')
  sandbox.run(
    *('bash', LAUNCH / 'remote/slurm.sbatch', 'python', '/my run', '3', *FLAGS),
    status=status,
    SLURM_JOB_ID='7',
    SLURM_JOB_NODELIST='node[1-2]',
    SLURM_RESTART_COUNT=restarts,
  )
  calls = sandbox.calls()
  assert calls[0] == [
    *('srun', '--kill-on-bad-exit=1', 'python', '-m', 'rahf.main', '--multihost'),
    *FLAGS,
  ]
  assert (calls[-1] == ['scontrol', 'requeue', 'Incomplete', '7']) == requeued
