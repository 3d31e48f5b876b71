"""The part of an image that CLIP sees: a square from its centre.

Axis letters: H W size of an image, S side of the square.
"""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from rahf.models.clip import MEAN, STD


def crop(pixels: UInt8[np.ndarray, 'H W 3'], side: int, source: str) -> np.ndarray:
  """Scales the shorter side, bicubic, and cuts the square from the centre.

  Args:
    side: of the square, in pixels.
    source: 'openai' or 'huggingface': they round differently where the margins on both
      sides differ by a pixel.

  Returns:
    uint8 [side, side, 3].
  """
  height, width = pixels.shape[:2]
  longer = int(side * max(height, width) / min(height, width))
  size = (side, longer) if width <= height else (longer, side)  # Width, height.
  image = Image.fromarray(pixels)
  if size != image.size:
    image = image.resize(size, Image.Resampling.BICUBIC)
  margins = [length - side for length in size]
  if source == 'openai':
    left, top = (round(margin / 2) for margin in margins)  # Halves to even numbers.
  else:
    left, top = (margin // 2 for margin in margins)
  return np.asarray(image.crop((left, top, left + side, top + side)))


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
