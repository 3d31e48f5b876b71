"""Says how much each colour of a world covers each pixel of an image.

The background is a plane through the grey pixels. A pixel's hue, its difference from
the background without the grey part, says how much of a colour covers it: 0 on the
background, 1 on an object, in between on outlines. Pixels that are no mixture of
background and a colour, as in noise and tears, count less.

Axis letters: H, W image; K colours of the world.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rahf.data.datasets.shapes.world import COLOURS

# Largest distance of a mixture from the line between background and colour, in RGB.
_TOLERANCE = 40
# Weight of other pixels, and what makes up for the paleness of colours in noise.
_DOUBT, _GAIN = 0.5, 2.2
# Coverage is limited to this range: the opposite hue is no worse than background.
_LIMITS = (-0.5, 1.2)
# Background pixels: the largest difference between channels, and the largest mean of
# dark and the smallest of light ones.
_GREY, _DARK, _LIGHT = 30, 90, 150
# The plane is fitted twice, without pixels farther than this from it.
_OUTLIERS = (15, 10)


class Coverage(NamedTuple):
  """What can be seen of the colours.

  Attributes:
    background: the image without objects, in 0 to 255.
    amount: how much each colour covers, estimated also in damaged places.
    weight: how reliable a pixel is, [0, 1].
    seen: as `amount`, in [0, 1], of each pixel's nearest colour; 0 for other colours
      and in doubtful pixels.
  """

  background: Float[np.ndarray, 'H W 3']
  amount: Float[np.ndarray, 'H W K']
  weight: Float[np.ndarray, 'H W']
  seen: Float[np.ndarray, 'H W K']


def measure_coverage(
  pixels: Float[np.ndarray, 'H W 3'], colours: tuple[str, ...]
) -> Coverage:
  """Measures the coverage by some of `world.COLOURS` in an RGB image of 0 to 255."""
  background = _fit_background(pixels)
  difference = pixels - background
  rgb = np.array([COLOURS[name] for name in colours], np.float32)
  # From the background to each colour; a gradient's middle stands for all of it.
  way = rgb - background.mean((0, 1))
  squares = (way**2).sum(1)
  along = difference @ way.T
  mixture = np.clip(along / squares, 0, 1)
  length = np.einsum('hwc,hwc->hw', difference, difference)[..., None]
  distance = length - mixture * (2 * along - mixture * squares)
  nearest = distance.argmin(-1)[..., None] == np.arange(len(colours))
  clear = distance.min(-1) < _TOLERANCE**2
  hue = way - way.mean(1, keepdims=True)
  amount = difference @ (hue / (hue**2).sum(1, keepdims=True)).T
  amount *= np.where(clear, 1, _GAIN)[..., None].astype(np.float32)
  seen = np.where(nearest & clear[..., None], mixture, 0)
  taken = seen.max(-1, keepdims=True) > 0.5
  amount = np.where(taken & ~nearest, 0, np.clip(amount, *_LIMITS))
  weight = np.where(clear, 1, _DOUBT).astype(np.float32)
  return Coverage(background, amount, weight, seen)


def _fit_background(
  pixels: Float[np.ndarray, 'H W 3'],
) -> Float[np.ndarray, 'H W 3']:
  """Fits a plane to the grey pixels, light or dark, whichever are more."""
  axes = _axes(*pixels.shape[:2])
  # A quarter of the pixels is enough.
  values, places = pixels[::2, ::2].reshape(-1, 3), axes[::2, ::2].reshape(-1, 3)
  red, green, blue = values.T
  high = np.maximum(np.maximum(red, green), blue)
  grey = high - np.minimum(np.minimum(red, green), blue) < _GREY
  mean = (red + green + blue) / 3
  light, dark = grey & (mean > _LIGHT), grey & (mean < _DARK)
  used = light if light.sum() >= dark.sum() else dark
  plane = np.zeros((3, 3), np.float32)
  # Of an image without grey pixels.
  plane[0] = values.mean()
  for limit in _OUTLIERS:
    if used.mean() < 0.05:
      break
    plane = _least_squares(places[used], values[used])
    used = used & (np.abs(places @ plane - values).max(1) < limit)
  return axes @ plane


@functools.cache
def _axes(height: int, width: int) -> Float[np.ndarray, 'H W 3']:
  """Returns 1, x and y of each pixel, x and y from -0.5 to 0.5."""
  y, x = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
  return np.stack([np.ones_like(x), x, y], -1).astype(np.float32)


def _least_squares(
  places: Float[np.ndarray, 'N 3'], values: Float[np.ndarray, 'N 3']
) -> Float[np.ndarray, '3 3']:
  """Solves the normal equations, which is much faster than `np.linalg.lstsq`."""
  # A little more than 0 on the diagonal, as the pixels may lie on a line.
  regular = 1e-3 * np.eye(3, dtype=np.float32)
  return np.linalg.solve(places.T @ places + regular, places.T @ values)
