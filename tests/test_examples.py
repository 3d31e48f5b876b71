"""The examples run from the project's root and write the expected files."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import rahf
import runs
import tiny_directory
from rahf.data import schema
from rahf.data.datasets.shapes.record import make_record
from rahf.data.storage.records import open_split

# As users have it, one device.
ONE_DEVICE = (
  '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
)


def run(example: str, *arguments: object) -> str:
  """Runs an example and returns its output."""
  found = subprocess.run(
    [sys.executable, f'examples/{example}.py', *map(str, arguments)],
    cwd=runs.ROOT,
    env=os.environ | {'PYTHONPATH': str(runs.ROOT), 'XLA_FLAGS': ONE_DEVICE},
    capture_output=True,
    text=True,
  )
  assert found.returncode == 0, found.stderr
  return found.stdout


def test_own_annotations(tmp_path):
  printed = run('own_annotations', tmp_path)
  report = json.loads(next(tmp_path.glob('data/mine/*/report.json')).read_text())
  assert 'a red circle' in printed
  assert (tmp_path / 'run' / 'eval' / 'test-20.md').exists()
  assert report


def test_annotate_in_browser(tmp_path):
  """Labels through the browser's requests are those made directly."""
  printed = run('annotate_in_browser', tmp_path)
  assert [line for line in printed.splitlines() if line.startswith('annotator')] == [
    f'annotator {number} answered 16 tasks' for number in range(3)
  ]
  (directory,) = tmp_path.glob('data/mine/*')
  records = {
    record.uid: record
    for split in schema.SPLITS
    for record in open_split(directory, split)
  }
  assert len(records) == 16
  for number in range(16):
    expected = make_record(0, 'train', number, 64)
    found = records[expected.uid]
    # Numbers are stored as float32.
    same = {
      name: pytest.approx(getattr(expected, name), abs=1e-6)
      for name in ('scores', 'keyword_shares')
    }
    assert found == expected._replace(**same)
  assert (tmp_path / 'run' / 'eval' / 'test-10.md').exists()


def test_reward_in_training(tmp_path):
  model = tiny_directory.write(tmp_path)
  printed = run('reward_in_training', model, tmp_path)
  rewards = [float(value) for value in re.findall(r'reward (-?[\d.]+)', printed)]
  assert len(rewards) == 3
  assert rewards[-1] > rewards[0]
  before, after = (
    np.asarray(Image.open(tmp_path / f'{n}.png')) for n in ('before', 'after')
  )
  assert (before != after).any()


def test_score_images(tmp_path):
  printed_by_example = run('score_images', tmp_path)
  assert (tmp_path / 'run' / 'eval' / 'test-20.md').exists()
  description = json.loads((tmp_path / 'run' / 'export' / 'model.json').read_text())
  assert description['step'] == 20

  model = rahf.load(tmp_path / 'run' / 'export')
  for number in range(3):
    record = make_record(0, 'test', number, 64)
    (one,) = model.score(record.image, record.prompt)
    assert f'{number}: {record.prompt}\n' in printed_by_example
    printed = ', '.join(f'{name} {one.scores[name]:.2f}' for name in schema.SCORES)
    assert printed in printed_by_example
    for name in schema.MAPS:
      saved = np.asarray(Image.open(tmp_path / f'{number}-{name}.png'))
      np.testing.assert_allclose(saved, np.asarray(one.overlay(name)), atol=1)
  assert re.search(r'rewards of noise \[[-\d. ]+\] plausibility', printed_by_example)
