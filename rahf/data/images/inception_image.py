"""Images as Inception takes them for FID: the whole image, squashed to a square.

Codes resize differently, which changes FID by whole points (Parmar et al., CVPR 2022):
only numbers of one convention can be compared.

Axis letters: H W size of an image, S side of the square, A B lengths before and after.
"""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from rahf.errors import InputError
from rahf.models.inception import SIDE

# 'pytorch_fid': bilinear between the nearest pixels, without antialiasing, and scaled
# by x / 127.5 - 1. 'clean_fid': PIL's bicubic, which has antialiasing, of each channel
# as floats, clipped to [0, 255] but not rounded, and scaled by x / 128 - 1.
CONVENTIONS = ('pytorch_fid', 'clean_fid')


def squash(
  pixels: UInt8[np.ndarray, 'H W 3'], convention: str, side: int = SIDE
) -> Float[np.ndarray, 'S S 3']:
  """Resizes an image to a square and scales it as the network takes it.

  Args:
    convention: one of CONVENTIONS.

  Returns:
    float32 [side, side, 3] in [-1, 1].

  Raises:
    InputError: the convention is unknown.
  """
  check_convention(convention)
  if convention == 'clean_fid':
    channels = [
      Image.fromarray(np.asarray(pixels[..., i], np.float32)).resize(
        (side, side), Image.Resampling.BICUBIC
      )
      for i in range(3)
    ]
    return (np.stack(channels, -1).clip(0, 255) - 128) / 128
  image = np.asarray(pixels, np.float32) / 255
  return 2 * _bilinear(_bilinear(image, side, 0), side, 1) - 1


def check_convention(convention: str) -> None:
  """Raises InputError if a convention is unknown."""
  if convention not in CONVENTIONS:
    raise InputError(
      f'{convention!r} is not a way to resize for FID; choose one of '
      f'{", ".join(CONVENTIONS)}'
    )


def _bilinear(
  image: Float[np.ndarray, '*A 3'], size: int, axis: int
) -> Float[np.ndarray, '*B 3']:
  """Resizes one axis as PyTorch does without `align_corners`: pixels are areas."""
  length = image.shape[axis]
  centres = np.arange(size, dtype=np.float32) + np.float32(0.5)
  # In float32, as there: it rounds visibly.
  place = (centres * np.float32(length / size) - np.float32(0.5)).clip(0, length - 1)
  low = np.floor(place).astype(int)
  high = np.minimum(low + 1, length - 1)
  weight = place - low.astype(np.float32)
  weight = np.expand_dims(weight, [i for i in range(image.ndim) if i != axis])
  return (1 - weight) * image.take(low, axis) + weight * image.take(high, axis)
