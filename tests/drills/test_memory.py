"""Memory does not grow with steps or requests."""

import pathlib
import re
import subprocess
import time

import improving
import pytest

import rahf
import runs
from rahf.service.engine import Engine
from served import ask_json, make_image, running, write_model

# Slack for allocators. Leaking half of the short run's 200 batches of 8 images of 64 px
# as floats, or half of its requests' images, would be 80 and 36 MB.
SLACK = 24 * 2**20


def resident(process: int | str, field: str = 'VmRSS') -> int:
  """Returns the resident memory of a process in bytes (on Linux); 0 if it has ended."""
  status = pathlib.Path(f'/proc/{process}/status').read_text()
  found = re.search(rf'{field}:\s+(\d+) kB', status)
  return int(found[1]) * 1024 if found else 0


def peak(process: subprocess.Popen) -> int:
  """Waits for a process; returns the most memory that it had in bytes (on Linux)."""
  found = 0
  while process.poll() is None:
    found = max(found, resident(process.pid, 'VmHWM'))
    time.sleep(0.2)
  return found


def test_training(data_dir, tmp_path, long):
  steps = 2_000 if long else 400
  every = steps // 8
  process = runs.start_tiny(
    data_dir,
    f'--workdir={tmp_path}/run',
    f'--config.train.steps={steps}',
    f'--config.train.log_every={every}',
    f'--config.train.checkpoint_every={steps}',
    f'--config.eval.every={10 * steps}',
  )
  found = []
  for line in process.stdout:
    if line.startswith('step '):
      found.append(resident(process.pid))
  _, errors = process.communicate(timeout=100)
  assert process.returncode == 0, errors
  # Measured once warm, and before the last evaluation.
  assert max(found[4:7]) - found[2] < SLACK


def test_serving(tmp_path, long):
  requests = 2_000 if long else 400
  engine = Engine(rahf.load(write_model(tmp_path), batch_size=4))
  engine.warm_up(print)
  image = make_image(height=200, width=300)
  found = []
  with running(engine) as port:
    for number in range(requests):
      assert ask_json(port, image).status == 200
      if number % (requests // 8) == 0:
        found.append(resident('self'))
  engine.stop(10)
  assert max(found[4:]) - found[2] < SLACK


@pytest.mark.parametrize(
  ('verb', 'source', 'options'),
  [
    ('filter', 'prompts.txt', ['--images_per_prompt=4']),
    ('inpaint', 'images', ['--threshold=0.4', '--candidates=4']),
    ('guide', 'prompts.txt', ['--strengths', '1', '2', '4', '--batch_size=8']),
    ('reprompt', 'prompts.txt', ['--words=all']),
  ],
)
def test_improving(tmp_path, monkeypatch, long, verb, source, options):
  """Ten times as many images, 10,000, need no more memory."""
  if not long:
    pytest.skip('--long: 10,000 images for each verb')
  # Compiling takes more memory than reading a compiled program.
  monkeypatch.setenv('JAX_ENABLE_COMPILATION_CACHE', 'false')
  peaks = []
  for prompts in (250, 2_500):
    folder = tmp_path / str(prompts)
    folder.mkdir()
    improving.write_models(folder, prompts)
    process = improving.start(folder, verb, source, *options, f'--out={folder}/out')
    peaks.append(peak(process))
    _, errors = process.communicate()
    assert process.returncode in (0, 1), errors
  assert peaks[1] - peaks[0] < SLACK
