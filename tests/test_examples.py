"""The examples run from the project's root and leave what they promise."""

import json
import os
import re
import subprocess
import sys

import numpy as np
from PIL import Image

import rahf
import runs
from rahf.data import schema
from rahf.data.datasets.shapes.record import make_record


def test_score_images(tmp_path):
  found = subprocess.run(
    [sys.executable, 'examples/score_images.py', str(tmp_path)],
    cwd=runs.ROOT,
    env=os.environ | {'PYTHONPATH': str(runs.ROOT)},
    capture_output=True,
    text=True,
  )
  assert found.returncode == 0, found.stderr
  assert (tmp_path / 'run' / 'eval' / 'test-20.md').exists()
  description = json.loads((tmp_path / 'run' / 'export' / 'model.json').read_text())
  assert description['step'] == 20

  model = rahf.load(tmp_path / 'run' / 'export')
  for number in range(3):
    record = make_record(0, 'test', number, 64)
    (one,) = model.score(record.image, record.prompt)
    assert f'{number}: {record.prompt}\n' in found.stdout
    printed = ', '.join(f'{name} {one.scores[name]:.2f}' for name in schema.SCORES)
    assert printed in found.stdout
    for name in schema.MAPS:
      saved = np.asarray(Image.open(tmp_path / f'{number}-{name}.png'))
      np.testing.assert_allclose(saved, np.asarray(one.overlay(name)), atol=1)
  assert re.search(r'rewards of noise \[[-\d. ]+\] plausibility', found.stdout)
