"""Colours heatmaps and overlays them on images."""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

# Ten evenly spaced colours of matplotlib's inferno; lightness grows with the value.
INFERNO = np.array(
  [
    (0, 0, 4),
    (27, 12, 65),
    (74, 12, 107),
    (120, 28, 109),
    (165, 44, 96),
    (207, 68, 70),
    (237, 105, 37),
    (251, 155, 6),
    (247, 209, 61),
    (252, 255, 164),
  ],
  np.float32,
)


def overlay(
  image: UInt8[np.ndarray, 'h w 3'], heatmap: Float[np.ndarray, 'h w']
) -> UInt8[np.ndarray, 'h w 3']:
  """Overlays a heatmap in [0, 1] on the greyed image; higher values are more opaque."""
  grey = np.asarray(Image.fromarray(image).convert('L'), np.float32)[..., None]
  colours, alpha = heat(heatmap)
  alpha = alpha[..., None]
  return np.round((1 - alpha) * (70 + 0.5 * grey) + alpha * colours).astype(np.uint8)


def heat(
  values: Float[np.ndarray, '*shape'],
) -> tuple[Float[np.ndarray, '*shape 3'], Float[np.ndarray, '*shape']]:
  """Returns the colours of values in [0, 1], RGB in [0, 255], and their opacity.

  The scale is fixed, so a value always has the same colour.
  """
  values = np.clip(values, 0, 1)
  # The darkest colours would look like shadows in the image.
  position = 0.3 + 0.7 * values
  knots = np.linspace(0, 1, len(INFERNO))
  colours = [np.interp(position, knots, channel) for channel in INFERNO.T]
  return np.stack(colours, -1), 0.85 * np.sqrt(values)
