"""Numbers by a formula, of which goldens of other projects' networks are computed."""

import math

import numpy as np


def noise(number: int, shape: tuple[int, ...]) -> np.ndarray:
  """Returns numbers from -1 to 1 without a pattern.

  Args:
    number: chooses among sequences.
  """
  flat = np.arange(math.prod(shape), dtype=np.float64)
  wave = 43758.5453 * np.sin(12.9898 * flat + 78.233 * number)
  return (2 * (wave - np.floor(wave)) - 1).reshape(shape)
