"""Writes safetensors."""

import os
import pathlib
from collections.abc import Mapping

import numpy as np
import safetensors.numpy


def write(
  path: os.PathLike, arrays: Mapping[str, np.ndarray], metadata: dict[str, str] | None
) -> None:
  """Writes arrays by name to a local file, without a copy in memory.

  The file gets the permissions of any new file; safetensors alone would let no other
  user read it.
  """
  path = pathlib.Path(os.fspath(path))
  path.touch()
  mode = path.stat().st_mode
  safetensors.numpy.save_file(dict(arrays), path, metadata)
  path.chmod(mode)
