"""Resamples position embeddings of one image size for another."""

import math

import numpy as np
from jaxtyping import Float
from scipy import ndimage


def grid_of(tokens: int) -> tuple[int, int] | None:
  """Returns the rows before a square grid (0, or 1 for the class token) and its side.

  None if there is no such grid.
  """
  for extra in (0, 1):
    side = math.isqrt(tokens - extra)
    if side * side == tokens - extra and side:
      return extra, side
  return None


def can_resample(old: int, new: int) -> bool:
  """Returns whether `resample_positions` can make `new` rows of `old` ones."""
  there, here = grid_of(old), grid_of(new)
  return there is not None and here is not None and there[0] <= here[0]


def resample_positions(
  table: Float[np.ndarray, '1 N D'], tokens: int
) -> Float[np.ndarray, '1 M D']:
  """Stretches a grid of embeddings, corner to corner, and interpolates linearly.

  As vision_transformer and big_vision do, by whose code the released models were
  fine-tuned at other image sizes. (Hugging Face interpolates by cubics, with the
  corners outside of the grid.) The class token's row is kept as it is; models that
  add no position to it have no such row, and get zeros.

  Args:
    table: N is the number of tokens, the class token's row first if there is one.
    tokens: M, the same for the model.
  """
  (old_extra, old), (new_extra, new) = grid_of(table.shape[1]), grid_of(tokens)
  table = np.asarray(table[0], np.float32)
  first, grid = table[:old_extra], table[old_extra:].reshape(old, old, -1)
  if new != old:
    # 'nearest' concerns rounding only: every place lies within the grid.
    grid = ndimage.zoom(grid, (new / old, new / old, 1), order=1, mode='nearest')
  first = np.pad(first, ((0, new_extra - old_extra), (0, 0)))
  return np.concatenate([first, grid.reshape(new * new, -1)])[None]
