"""What CLIP sees of an image: a square from its centre."""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

MEAN = np.array((0.48145466, 0.4578275, 0.40821073), np.float32)
STD = np.array((0.26862954, 0.26130258, 0.27577711), np.float32)


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


def normalised(pixels: UInt8[np.ndarray, '*N 3']) -> Float[np.ndarray, '*N 3']:
  """Scales pixels as CLIP was trained with them."""
  return (np.asarray(pixels, np.float32) / 255 - MEAN) / STD
