"""Examples of a split to look at, on contact sheets."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from rahf.data.images import codec
from rahf.data.storage.records import RecordSplit
from rahf.drawing.contact_sheet import SIDE, Tile


def shown_rows(split: RecordSplit, count: int) -> Sequence[int]:
  """Returns the positions of `count` examples, evenly spaced in the split."""
  return np.linspace(0, len(split) - 1, min(count, len(split)), dtype=int).tolist()


def tile(
  image: UInt8[np.ndarray, 'H W 3'] | Float[np.ndarray, 'H W 3'], caption: str
) -> Tile:
  """Returns a tile of a contact sheet; floats are in [0, 1]."""
  if image.dtype != np.uint8:
    image = np.round(255 * image).astype(np.uint8)
  pixels = codec.resize(image, min(SIDE, max(image.shape[:2])))
  return Tile(codec.encode_png(pixels), caption, '')
