"""Drawings of single objects, to find objects in images by comparison.

Axis letters: T templates, S side of a template in pixels, C coarse templates.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rahf.data.datasets.shapes.render import draw
from rahf.data.datasets.shapes.scene import Attributes, Background, Group, Scene
from rahf.data.datasets.shapes.world import WORLDS

# Width of the images that are compared, in pixels.
IMAGE_SIZE = 64
# The renderer draws in thirds of a pixel.
_STEP = 1 / 3
_BLACK = Background((0, 0, 0), (0, 0, 0), 0.0)


class Templates(NamedTuple):
  """All objects of one size, each a flat square of coverages in [0, 1].

  Attributes:
    side: S, odd.
    flat, squares: coverages and their squares, a column for each template.
    energy: sum of the squares.
    kinds: of each template, positions in the world's `kinds`.
    radii: in pixels.
    offsets: (y, x) of the centre from the middle of the square, in pixels.
    coarse, coarse_squares: the middle radii without offset, summed over 2 x 2 pixels.
    coarse_energy: as `energy`.
  """

  side: int
  flat: Float[np.ndarray, 'S*S T']
  squares: Float[np.ndarray, 'S*S T']
  energy: Float[np.ndarray, 'T']
  kinds: Int[np.ndarray, 'T']
  radii: Float[np.ndarray, 'T']
  offsets: Float[np.ndarray, 'T 2']
  coarse: Float[np.ndarray, 'h*h C']
  coarse_squares: Float[np.ndarray, 'h*h C']
  coarse_energy: Float[np.ndarray, 'C']

  def drawing(self, number: int) -> Float[np.ndarray, 'S S']:
    return self.flat[:, number].reshape(self.side, self.side)


@functools.cache
def templates(world: str) -> tuple[Templates, ...]:
  """Returns the templates of each size of a world."""
  kinds, ranges = WORLDS[world].kinds, WORLDS[world].radii.values()
  # All sizes have the same side, with a pixel of background around the largest.
  side = 2 * math.ceil(max(high for _, high in ranges) * IMAGE_SIZE + 1) + 1
  return tuple(
    _of_size(kinds, low * IMAGE_SIZE, high * IMAGE_SIZE, side) for low, high in ranges
  )


def _of_size(
  kinds: tuple[str, ...], smallest: float, largest: float, side: int
) -> Templates:
  radii = np.linspace(smallest, largest, round((largest - smallest) / _STEP) + 1)
  steps = (-_STEP, 0, _STEP)
  rows = [
    (kind, radius, (y, x))
    for kind in range(len(kinds))
    for radius in radii
    for y in steps
    for x in steps
  ]
  drawn = np.stack([_draw(kinds[k], radius, at, side) for k, radius, at in rows])
  middle = radii[len(radii) // 2]
  coarse = np.array([radius == middle and at == (0, 0) for _, radius, at in rows])
  numbers, sizes, offsets = map(np.array, zip(*rows, strict=True))
  flat = np.ascontiguousarray(drawn.reshape(len(drawn), -1).T)
  energy = (flat**2).sum(0)
  return Templates(
    side,
    flat,
    flat**2,
    energy,
    numbers,
    sizes,
    offsets,
    _halved(drawn[coarse]),
    _halved(drawn[coarse] ** 2),
    energy[coarse],
  )


def _draw(
  kind: str, radius: float, offset: tuple[float, float], side: int
) -> Float[np.ndarray, 'S S']:
  attributes = Attributes(1, '', 'yellow', kind, 0, 0)
  y, x = (0.5 + v / side for v in offset)
  group = Group(attributes, attributes, frozenset(), radius / side, ((x, y),))
  red = draw(Scene((group,), (), _BLACK), side)[..., 0].astype(np.float32)
  return red / red.max()


def _halved(drawn: Float[np.ndarray, 'C S S']) -> Float[np.ndarray, 'h*h C']:
  even = np.pad(drawn, ((0, 0), (0, 1), (0, 1)))
  half = even.shape[1] // 2
  sums = even.reshape(len(drawn), half, 2, half, 2).sum((2, 4))
  return np.ascontiguousarray(sums.reshape(len(drawn), -1).T)
