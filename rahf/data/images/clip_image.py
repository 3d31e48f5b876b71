"""The part of an image that CLIP sees: a square from its centre.

Axis letters: N images, H W size of an image, S side of the square.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from rahf.models.clip import MEAN, STD


class Square(NamedTuple):
  """The square in an image that is first scaled to `height` and `width`."""

  height: int
  width: int
  top: int
  left: int


def square_of(height: int, width: int, side: int, source: str) -> Square:
  """Returns where CLIP's square is in an image of any size; see `crop`."""
  longer = int(side * max(height, width) / min(height, width))
  size = (longer, side) if width <= height else (side, longer)
  margins = [length - side for length in size]
  if source == 'openai':
    top, left = (round(margin / 2) for margin in margins)  # Halves to even numbers.
  else:
    top, left = (margin // 2 for margin in margins)
  return Square(*size, top, left)


def crop(pixels: UInt8[np.ndarray, 'H W 3'], side: int, source: str) -> np.ndarray:
  """Scales the shorter side, bicubic, and cuts the square from the centre.

  Args:
    side: of the square, in pixels.
    source: 'openai' or 'huggingface': they round differently where the margins on both
      sides differ by a pixel.

  Returns:
    uint8 [side, side, 3].
  """
  height, width, top, left = square_of(*pixels.shape[:2], side, source)
  image = Image.fromarray(pixels)
  if (width, height) != image.size:
    image = image.resize((width, height), Image.Resampling.BICUBIC)
  return np.asarray(image.crop((left, top, left + side, top + side)))


def crop_floats(
  pixels: Float[Array, 'N H W 3'], side: int, source: str
) -> Float[Array, 'N {side} {side} 3']:
  """Crops like `crop`, differentiable, and without rounding to levels of 1/255.

  Values may exceed the range of the pixels at sharp edges, where `crop` clips them.
  """
  height, width, top, left = square_of(*pixels.shape[1:3], side, source)
  if (height, width) != pixels.shape[1:3]:
    shape = len(pixels), height, width, 3
    pixels = jax.image.resize(pixels, shape, 'bicubic', antialias=True)
  return pixels[:, top : top + side, left : left + side]


def crop_then_scale(
  pixels: UInt8[np.ndarray, 'H W 3'], side: int
) -> UInt8[np.ndarray, 'S S 3']:
  """Cuts the largest square from the centre, and scales it, bicubic, as CMMD's code.

  CLIP's own order is that of `crop`; the pixels differ at the borders.

  Args:
    side: of the result, in pixels.
  """
  height, width = pixels.shape[:2]
  largest = min(height, width)
  top, left = (height - largest) // 2, (width - largest) // 2
  square = Image.fromarray(pixels[top : top + largest, left : left + largest])
  return np.asarray(square.resize((side, side), Image.Resampling.BICUBIC))


def uncrop(
  heat: Float[np.ndarray, 'S S'], height: int, width: int
) -> Float[np.ndarray, 'H W']:
  """Puts a map of the square back into its image; 0 where CLIP saw nothing."""
  side = min(height, width)
  square = Image.fromarray(np.asarray(heat, np.float32))
  square = square.resize((side, side), Image.Resampling.BILINEAR)
  whole = np.zeros((height, width), np.float32)
  top, left = (height - side) // 2, (width - side) // 2
  whole[top : top + side, left : left + side] = square
  return whole


def normalised(pixels: UInt8[np.ndarray, '*N 3']) -> Float[np.ndarray, '*N 3']:
  """Scales pixels as CLIP was trained with them."""
  return (np.asarray(pixels, np.float32) / 255 - MEAN) / STD
