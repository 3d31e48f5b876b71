"""Permissions of written weights; their content is tested where they are read."""

import os

import numpy as np
from safetensors.numpy import load_file

from rahf.fileio import safetensors_file


def test_others_may_read_what_the_umask_lets_them(tmp_path):
  for umask, mode in ((0o022, 0o644), (0o027, 0o640)):
    path, before = tmp_path / f'{umask}.safetensors', os.umask(umask)
    try:
      safetensors_file.write(path, {'a': np.arange(3)}, None)
    finally:
      os.umask(before)
    assert path.stat().st_mode & 0o777 == mode
    assert load_file(path)['a'].tolist() == [0, 1, 2]
