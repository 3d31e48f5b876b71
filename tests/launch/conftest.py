"""Sandboxes in which scripts of launch/ find fakes of clouds and machines."""

import pathlib
import shutil
import subprocess
import sys

import pytest

from launch_sandbox import LAUNCH, OUTSIDE, Sandbox

TRAINING_STAND_IN = '''
"""Trains as long as its first attempt is not stopped; the next one ends by itself."""
import json, pathlib, signal, sys, time
from etils import epath

flags = dict(flag.lstrip('-').split('=', 1) for flag in sys.argv[1:] if '=' in flag)
workdir = epath.Path(flags['workdir'])
stopped = False

def stop(number, frame):  # As rahf.runtime.preemption.
  global stopped
  stopped = True
  signal.signal(number, signal.SIG_DFL)

for number in (signal.SIGTERM, signal.SIGINT):
  signal.signal(number, stop)
if 'fail' in flags:
  sys.exit(int(flags['fail']))
again = (workdir / 'checkpoints').exists()
(workdir / 'checkpoints').mkdir(parents=True, exist_ok=True)
settings = {'train': {'steps': 5}, 'eval': {'final_split': 'test'}}
(workdir / 'config.json').write_text(json.dumps(settings))
print('training again' if again else 'training', sys.argv[1:])
while not (stopped or again):
  time.sleep(0.02)
if stopped:
  time.sleep(0.2)  # Saves: a second SIGTERM ends it here.
  print('saved')
else:
  (workdir / 'metrics.jsonl').write_text('{"step": 5, "split": "test"}')
'''
BUCKETS_STAND_IN = """
import os, pathlib

def Path(path):
  return pathlib.Path(os.environ['BUCKETS'], path.removeprefix('gs://'))
"""


@pytest.fixture
def sandbox(tmp_path) -> Sandbox:
  """A sandbox where all commands that contact other machines fail."""
  sandbox = Sandbox(tmp_path)
  for name in OUTSIDE:
    sandbox.stub(name, 'echo "$0 was run" >&2; exit 99')
  return sandbox


@pytest.fixture
def site(tmp_path) -> Sandbox:
  """A sandbox with a checkout in the folder `checkout`, and a machine to train on."""
  sandbox = Sandbox(tmp_path / 'sandbox')
  modules = tmp_path / 'modules'
  for name, text in {
    'rahf/__init__.py': '',
    'rahf/main.py': TRAINING_STAND_IN,
    'etils/__init__.py': '',
    'etils/epath.py': BUCKETS_STAND_IN,
  }.items():
    (modules / name).parent.mkdir(parents=True, exist_ok=True)
    (modules / name).write_text(text)
  (tmp_path / 'machine').mkdir()
  sandbox.env |= {
    'MACHINE': str(tmp_path / 'machine'),
    'BUCKETS': str(tmp_path / 'buckets'),
    'PYTHONPATH': str(modules),
    'PYTHON': sys.executable,
    'RUN': 'first',
  }
  sandbox.stub(
    'uv',
    '[[ $1 == venv ]] || exit 0; mkdir -p "${@: -1}/bin"; '
    'printf \'#!/bin/sh\\nexec "$PYTHON" "$@"\\n\' >"${@: -1}/bin/python"; '
    'chmod +x "${@: -1}/bin/python"',
  )
  shutil.copytree(LAUNCH, sandbox.folder / 'checkout/launch')
  git = ['git', '-c', 'user.name=x', '-c', 'user.email=x@y', '-C', 'checkout']
  sandbox.run(*git, 'init', '-q')
  sandbox.run(*git, 'add', '.')
  sandbox.run(*git, 'commit', '-qm', 'x')
  yield sandbox
  for pid in pathlib.Path(sandbox.env['MACHINE']).glob('rahf/jobs/*/pid'):
    subprocess.run(['pkill', '-KILL', '-s', pid.read_text().strip()])
