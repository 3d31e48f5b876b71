"""Draws a scene with Pillow and damages parts of it with NumPy.

Axis letters: H height, W width.
"""

import math

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from rahf.data.datasets.shapes.scene import Background, Damage, Scene
from rahf.data.datasets.shapes.world import COLOURS

# Images are drawn this much larger and averaged, for smooth edges.
_SUPERSAMPLE = 3

# A quarter of the cross; the rotation (x, y) -> (-y, x) gives the next.
_ARM = np.array([(-0.32, -1), (0.32, -1), (0.32, -0.32)])
# Outlines in units of an object's radius, (x, y), y downwards.
_POLYGONS = {
  'square': np.array([(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]),
  'triangle': np.array([(0, -1), (1, 0.85), (-1, 0.85)]),
  'cross': np.concatenate(
    [_ARM @ np.linalg.matrix_power([[0, 1], [-1, 0]], turn) for turn in range(4)]
  ),
}


def render(
  scene: Scene, image_size: int, rng: np.random.Generator
) -> UInt8[np.ndarray, 'H W 3']:
  """Returns the square RGB image of a scene, damages included.

  Args:
    scene: what to draw.
    image_size: height and width in pixels.
    rng: for the damages' texture; the same seed damages the same regions at every size.
  """
  pixels = draw(scene, image_size).astype(np.float32)
  for damage in scene.damages:
    _spoil(pixels, damage, rng)
  return np.round(pixels).astype(np.uint8)


def draw(scene: Scene, image_size: int) -> UInt8[np.ndarray, 'H W 3']:
  """Returns the scene without its damages."""
  side = image_size * _SUPERSAMPLE
  background = Image.fromarray(_background(scene.background, image_size))
  canvas = background.resize((side, side), Image.Resampling.NEAREST)
  brush = ImageDraw.Draw(canvas)
  for group in scene.groups:
    if group.drawn is None:
      continue
    colour, kind = COLOURS[group.drawn.colour], group.drawn.kind
    for centre in group.centres:
      x, y, radius = (v * side for v in (*centre, group.radius))
      box = (x - radius, y - radius, x + radius, y + radius)
      if kind == 'circle':
        brush.ellipse(box, fill=colour)
      elif kind == 'ring':
        brush.ellipse(box, outline=colour, width=round(0.4 * radius))
      else:
        corners = np.array((x, y)) + radius * _POLYGONS[kind]
        brush.polygon([tuple(corner) for corner in corners.tolist()], fill=colour)
  return np.asarray(canvas.reduce(_SUPERSAMPLE))


def _background(background: Background, size: int) -> UInt8[np.ndarray, 'H W 3']:
  if background.start == background.end:
    return np.full((size, size, 3), background.start, np.uint8)
  start, end = (np.array(c, np.float32) for c in (background.start, background.end))
  axis = np.linspace(-0.5, 0.5, size, dtype=np.float32)
  x, y = axis * np.cos(background.angle), axis[:, None] * np.sin(background.angle)
  # No pixel lies farther than half the diagonal along any angle.
  share = (0.5 + (x + y) / np.sqrt(2)).astype(np.float32)[..., None]
  return np.round(start + share * (end - start)).astype(np.uint8)


def _spoil(
  pixels: Float[np.ndarray, 'H W 3'], damage: Damage, rng: np.random.Generator
) -> None:
  """Overwrites one damaged disc in place."""
  size = len(pixels)
  x, y, radius = (v * size for v in (damage.x, damage.y, damage.radius))
  # The window is wider than the disc, as smears and tears sample from around it.
  left, top = (max(0, int(c - 2 * radius)) for c in (x, y))
  right, bottom = (min(size, int(c + 2 * radius) + 1) for c in (x, y))
  window = pixels[top:bottom, left:right]
  dx = np.arange(left, right) - x
  dy = np.arange(top, bottom)[:, None] - y
  # Along the damage's direction, and across it.
  along = dx * math.cos(damage.angle) + dy * math.sin(damage.angle)
  across = dy * math.cos(damage.angle) - dx * math.sin(damage.angle)
  length = radius * damage.strength
  if damage.kind == 'smear':
    spoilt = _smear(window, damage.angle, 1.6 * length)
  elif damage.kind == 'warp':
    shift = 0.5 * length * np.sin(2 * np.pi * across / (0.9 * radius))
    spoilt = _displace(window, shift, damage.angle)
  elif damage.kind == 'noise':
    cells = rng.uniform(0, 255, (16, 16, 3))
    # The same 16 x 16 grains at every image size.
    grain = radius / 8
    rows, columns = (np.floor(v / grain).astype(int) % 16 for v in (dy, dx))
    # Not opaque, so that the object's colour and kind stay recognisable.
    opacity = 0.4 + 0.25 * damage.strength
    spoilt = window + opacity * (cells[rows, columns] - window)
  else:
    spoilt = _tear(window, along, across, damage, radius, rng)
  # Full strength inside, fading out over a tenth of the radius.
  mask = np.clip((1.1 * radius - np.hypot(dx, dy)) / (0.1 * radius), 0, 1)[..., None]
  window += (mask * (spoilt - window)).astype(np.float32)


def _smear(
  window: Float[np.ndarray, 'H W 3'], angle: float, length: float
) -> Float[np.ndarray, 'H W 3']:
  """Averages along a direction, like a thumb over wet paint."""
  # Enough steps to avoid ghosts, few enough for large images.
  steps = np.linspace(-length, length, min(max(round(length), 9), 32))
  return sum(_displace(window, step, angle) for step in steps) / len(steps)


def _displace(
  window: Float[np.ndarray, 'H W 3'],
  shift: Float[np.ndarray, '#H #W'] | float,
  angle: float,
) -> Float[np.ndarray, 'H W 3']:
  """Takes each pixel from `shift` pixels further along the angle."""
  height, width, _ = window.shape
  rows = np.arange(height)[:, None] + shift * math.sin(angle)
  columns = np.arange(width) + shift * math.cos(angle)
  rows = np.rint(rows).astype(int).clip(0, height - 1)
  columns = np.rint(columns).astype(int).clip(0, width - 1)
  return window[rows, columns]


def _tear(
  window: Float[np.ndarray, 'H W 3'],
  along: Float[np.ndarray, 'H W'],
  across: Float[np.ndarray, 'H W'],
  damage: Damage,
  radius: float,
  rng: np.random.Generator,
) -> Float[np.ndarray, 'H W 3']:
  """Shifts two halves along a jagged gap, black on light and white on dark."""
  teeth = rng.uniform(-0.2, 0.2, 16) * radius
  edge = across - teeth[np.floor(along / (radius / 4)).astype(int) % 16]
  shift = np.where(edge > 0, 1, -1) * 0.5 * radius * damage.strength
  spoilt = _displace(window, shift, damage.angle)
  dark = window.mean() < 128
  gap = np.abs(edge) < 0.1 * radius * (1 + damage.strength)
  spoilt[gap] = 255 if dark else 0
  return spoilt
