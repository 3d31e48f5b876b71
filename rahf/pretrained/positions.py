"""Resamples position embeddings from one image size to another."""

import math

import numpy as np
from jaxtyping import Float
from scipy import ndimage


def grid_of(tokens: int) -> tuple[int, int] | None:
  """Returns (rows before a square grid: 0, or 1 for the class token; its side).

  None if there is no such grid.
  """
  for extra in (0, 1):
    side = math.isqrt(tokens - extra)
    if side * side == tokens - extra and side:
      return extra, side
  return None


def can_resample(old: int, new: int) -> bool:
  """Returns whether `resample_positions` can convert `old` rows to `new` rows."""
  before, after = grid_of(old), grid_of(new)
  return before is not None and after is not None and before[0] <= after[0]


def resample_positions(
  table: Float[np.ndarray, '1 N D'], tokens: int
) -> Float[np.ndarray, '1 M D']:
  """Resizes a grid of embeddings linearly, with aligned corners.

  Same as vision_transformer and big_vision, whose code fine-tuned the released models
  at other image sizes. (Hugging Face uses bicubic interpolation without aligned
  corners.) The class token's row is unchanged; for models that add no position to it,
  which have no such row, it becomes zeros.

  Args:
    table: N is the number of tokens, with the class token's row first if there is one.
    tokens: M, the model's number of tokens.
  """
  (old_extra, old), (new_extra, new) = grid_of(table.shape[1]), grid_of(tokens)
  table = np.asarray(table[0], np.float32)
  first, grid = table[:old_extra], table[old_extra:].reshape(old, old, -1)
  if new != old:
    # 'nearest' matters for rounding only: all sampled points lie within the grid.
    grid = ndimage.zoom(grid, (new / old, new / old, 1), order=1, mode='nearest')
  first = np.pad(first, ((0, new_extra - old_extra), (0, 0)))
  return np.concatenate([first, grid.reshape(new * new, -1)])[None]
