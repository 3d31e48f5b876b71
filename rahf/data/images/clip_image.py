"""What CLIP sees of an image: a square from its centre."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

MEAN = np.array((0.48145466, 0.4578275, 0.40821073), np.float32)
STD = np.array((0.26862954, 0.26130258, 0.27577711), np.float32)


class CropBox(NamedTuple):
  """Where the square lies.

  Attributes:
    scaled: height and width of the scaled image.
    top, left: of the square, in pixels of the scaled image.
  """

  scaled: tuple[int, int]
  top: int
  left: int


def crop_box(height: int, width: int, side: int, source: str) -> CropBox:
  """Returns where the square of an image lies; see `crop`."""
  short, long = sorted((height, width))
  longer = int(side * long / short)
  scaled = (side, longer) if height <= width else (longer, side)
  margins = [length - side for length in scaled]
  if source == 'openai':
    top, left = (round(margin / 2) for margin in margins)  # Halves to even numbers.
  else:
    top, left = (margin // 2 for margin in margins)
  return CropBox(scaled, top, left)


def crop(pixels: UInt8[np.ndarray, 'H W 3'], side: int, source: str) -> np.ndarray:
  """Scales the shorter side, bicubic, and cuts the square from the centre.

  Args:
    side: of the square, in pixels.
    source: 'openai' or 'huggingface': where the margins are not of equal width, they
      round differently.

  Returns:
    uint8 [side, side, 3].
  """
  box = crop_box(*pixels.shape[:2], side, source)
  height, width = box.scaled
  image = Image.fromarray(pixels)
  if (width, height) != image.size:
    image = image.resize((width, height), Image.Resampling.BICUBIC)
  left, top = box.left, box.top
  return np.asarray(image.crop((left, top, left + side, top + side)))


def normalised(pixels: UInt8[np.ndarray, '*N 3']) -> Float[np.ndarray, '*N 3']:
  """Scales pixels as CLIP was trained with them."""
  return (np.asarray(pixels, np.float32) / 255 - MEAN) / STD
