"""Finds the objects in an image of shapes by comparison with templates.

Nothing is learned, and the scene is not known. Objects of a colour are taken one by
one: the template and the position that explain most of the colour's coverage, as long
as they explain enough. A coarse search over the image, at half its size, is followed by
a fine one around the best position, in thirds of a pixel. Objects of one colour have
one size, and one kind unless an object clearly has another.

Axis letters: H, W image; D kinds; S side of a template; T templates; N positions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from rahf.data.datasets.shapes.colour_coverage import measure_coverage
from rahf.data.datasets.shapes.templates import IMAGE_SIZE, Templates, templates
from rahf.data.datasets.shapes.world import COLOURS, WORLDS

# Least share of its energy that the first object of a colour explains, and any further
# one: a first one may be smeared all over.
_FIRST, _FURTHER = 0.06, 0.1
# What objects cost when sizes are compared, so that few large ones beat many small.
_COST = 0.1
_MOST_COLOURS, _MOST_OBJECTS = 3, 6
# Covered pixels below which a colour is not looked for.
_LEAST_COVERED = 15
# An object has its own kind if that explains this share of its energy, and so much
# times more than its group's. Otherwise it is a damaged object of its group.
_OWN, _CLEARLY = 0.8, 1.3
# Templates are scored by energy times a power of the explained share: a large template
# that covers two small objects explains no less than one of them, but is worse. The
# choice between kinds is less severe.
_SEVERITY, _KIND_SEVERITY = 2, 1.25
# Of a template's energy, the least that doubtful pixels leave.
_LEAST_ENERGY = 0.3
# Pixels searched around the best coarse position, each way.
_REACH = 2
# Objects have the colour that is seen if it is this close to the world's, in RGB.
_SAME_COLOUR = 60


class FoundObject(NamedTuple):
  """An object; lengths are fractions of the image's side, as in a scene.

  Attributes:
    x, y: the centre.
    radius: half the side of the bounding box.
    fit: intersection over union of the template and of what is seen, [0, 1].
  """

  colour: str
  kind: str
  x: float
  y: float
  radius: float
  fit: float


class Findings(NamedTuple):
  """What was found in an image.

  Attributes:
    objects: by colour, the most frequent colour first.
    background: without objects, in 0 to 255.
    expected: the undamaged image that shows these objects.
  """

  objects: tuple[FoundObject, ...]
  background: Float[np.ndarray, 'H W 3']
  expected: Float[np.ndarray, 'H W 3']


class _Match(NamedTuple):
  """An object with the best template of every kind.

  Attributes:
    scores: how much of the coverage each kind explains.
    templates: number of the best template of each kind.
    centres: its (y, x) in whole pixels.
    explained: share of the best template's energy.
    energy: of the best template.
  """

  scores: Float[np.ndarray, 'D']
  templates: Int[np.ndarray, 'D']
  centres: Int[np.ndarray, 'D 2']
  explained: float
  energy: float


def find_objects(image: UInt8[np.ndarray, 'H W 3'], world: str) -> Findings:
  """Finds the objects in an RGB image of `templates.IMAGE_SIZE` pixels each way.

  Args:
    image: what to search.
    world: one of `WORLDS`.
  """
  colours, kinds = WORLDS[world].colours, WORLDS[world].kinds
  pixels = image.astype(np.float32)
  coverage = measure_coverage(pixels, colours)
  amount, expected = coverage.amount.copy(), coverage.background.copy()
  found, shapes, seen = [], [], []
  for _ in range(_MOST_COLOURS):
    positive = np.maximum(amount, 0)
    covered = np.einsum('hw,hwk,hwk->k', coverage.weight, positive, positive)
    colour = int(covered.argmax())
    if covered[colour] < _LEAST_COVERED:
      break
    bank, matches = _best_size(amount[..., colour], coverage.weight, templates(world))
    amount[..., colour] = 0
    for kind, match in zip(_choose_kinds(matches), matches, strict=True):
      template, (row, column) = match.templates[kind], match.centres[kind]
      shape = _place(bank.drawing(template), row, column)
      amount[shape > 0] = 0
      rgb = _shown_colour(pixels, shape, COLOURS[colours[colour]])
      expected += shape[..., None] * (rgb - expected)
      y, x = (np.array((row, column)) + 0.5 + bank.offsets[template]) / IMAGE_SIZE
      radius = float(bank.radii[template]) / IMAGE_SIZE
      found.append((colours[colour], kinds[kind], float(x), float(y), radius))
      shapes.append(shape)
      seen.append(coverage.seen[..., colour])
  fits = _fits(shapes, seen)
  objects = tuple(FoundObject(*o, fit) for o, fit in zip(found, fits, strict=True))
  return Findings(objects, coverage.background, expected)


def _best_size(
  amount: Float[np.ndarray, 'H W'],
  weight: Float[np.ndarray, 'H W'],
  sizes: Sequence[Templates],
) -> tuple[Templates, list[_Match]]:
  """Returns the size that explains most of a colour, with its objects."""
  runs = [(bank, _pursue(amount, weight, bank)) for bank in sizes]

  def gain(run: tuple[Templates, list[_Match]]) -> float:
    return sum((match.explained - _COST) * match.energy for match in run[1])

  return max(runs, key=gain)


def _pursue(
  amount: Float[np.ndarray, 'H W'],
  weight: Float[np.ndarray, 'H W'],
  bank: Templates,
) -> list[_Match]:
  """Takes objects of one size, the one that explains most first."""
  side = bank.side
  # So that coarse windows, which are one pixel wider, start at even positions.
  margin = (side + 1) // 2
  padded_weight = np.pad(weight, margin)
  weighted = np.pad(weight * amount, margin)
  inner = weighted[margin:-margin, margin:-margin]
  half_energy = _windows(_halve(padded_weight), margin) @ bank.coarse_squares
  matches: list[_Match] = []
  while len(matches) < _MOST_OBJECTS and inner.sum(where=inner > 0) > _LEAST_COVERED:
    half_overlap = _windows(_halve(weighted), margin) @ bank.coarse
    explained = _explained(half_overlap, half_energy, bank.coarse_energy)
    scores = explained**_SEVERITY * bank.coarse_energy
    spot = int(scores.argmax()) // scores.shape[1]
    # A coarse window's middle, in the image's pixels.
    middle = 2 * np.array(divmod(spot, IMAGE_SIZE // 2 + 1)) - 1
    low, high = np.clip((middle - _REACH, middle + _REACH), 0, IMAGE_SIZE - 1)
    match = _refine(weighted, padded_weight, bank, low, high)
    if match.explained < (_FURTHER if matches else _FIRST):
      break
    matches.append(match)
    best = match.scores.argmax()
    shape = _place(bank.drawing(match.templates[best]), *match.centres[best])
    inner[shape > 0] = 0
    # Objects do not overlap.
    inner[shape > 0.5] = -0.5
  return matches


def _refine(
  weighted: Float[np.ndarray, 'h w'],
  weight: Float[np.ndarray, 'h w'],
  bank: Templates,
  low: Int[np.ndarray, '2'],
  high: Int[np.ndarray, '2'],
) -> _Match:
  """Compares all templates at centres from `low` to `high`, inclusive."""
  # The padded image has one pixel more than the templates reach.
  window = tuple(
    slice(a + 1, b + bank.side + 1) for a, b in zip(low, high, strict=True)
  )
  overlap = _windows(weighted[window], bank.side) @ bank.flat
  if weight[window].min() < 1:
    energy = _windows(weight[window], bank.side) @ bank.squares
  else:
    energy = bank.energy
  explained = _explained(overlap, energy, bank.energy)
  best = (explained**_SEVERITY * bank.energy).argmax()
  # Templates are sorted by kind.
  each = bank.kinds.searchsorted(1)
  by_kind = (explained**_KIND_SEVERITY * bank.energy).reshape(len(explained), -1, each)
  by_kind = by_kind.swapaxes(0, 1).reshape(by_kind.shape[1], -1)
  spots, templates = np.divmod(by_kind.argmax(1), each)
  return _Match(
    by_kind.max(1),
    templates + each * np.arange(len(templates)),
    low + np.stack(np.divmod(spots, high[1] - low[1] + 1), 1),
    float(explained.flat[best]),
    float(bank.energy[best % len(bank.energy)]),
  )


def _explained(
  overlap: Float[np.ndarray, 'N T'],
  energy: Float[np.ndarray, '*N T'],
  full: Float[np.ndarray, 'T'],
) -> Float[np.ndarray, 'N T']:
  """Returns the share of their energy that templates explain, 1 for a clean object.

  A template of opacity o, at most 1, reduces the squared error by
  2 o overlap - o² energy; the best o is their ratio.

  Args:
    overlap: sum of weight, amount and template.
    energy: sum of weight and squared template.
    full: sum of the squared template.
  """
  energy = np.maximum(energy, _LEAST_ENERGY * full)
  opacity = np.clip(overlap / energy, 0, 1)
  return opacity * (2 * overlap - opacity * energy) / full


def _choose_kinds(matches: Sequence[_Match]) -> list[int]:
  """Returns the kind of each object."""
  if not matches:
    return []
  group = sum(match.scores for match in matches).argmax()
  best = [match.scores.argmax() for match in matches]
  clearly = [max(match.scores) > _CLEARLY * match.scores[group] for match in matches]
  return [
    int(own if clear and match.explained > _OWN else group)
    for own, clear, match in zip(best, clearly, matches, strict=True)
  ]


def _place(
  drawing: Float[np.ndarray, 'S S'], row: int, column: int
) -> Float[np.ndarray, 'H W']:
  """Returns an image with a template around a centre."""
  side = len(drawing)
  canvas = np.zeros((IMAGE_SIZE + side - 1,) * 2, np.float32)
  canvas[row : row + side, column : column + side] = drawing
  half = side // 2
  return canvas[half : half + IMAGE_SIZE, half : half + IMAGE_SIZE]


def _shown_colour(
  pixels: Float[np.ndarray, 'H W 3'],
  shape: Float[np.ndarray, 'H W'],
  colour: tuple[int, int, int],
) -> Float[np.ndarray, '3']:
  """Returns the median colour of an object, or the world's if little is seen of it."""
  inside = pixels[shape > 0.95]
  known = np.array(colour, np.float32)
  near = inside[np.abs(inside - known).max(1) < _SAME_COLOUR]
  return np.median(near, 0) if 2 * len(near) > len(inside) else known


def _fits(
  shapes: Sequence[Float[np.ndarray, 'H W']], seen: Sequence[Float[np.ndarray, 'H W']]
) -> list[float]:
  """Returns each object's intersection over union, without what other objects cover."""
  fits = []
  for i, (shape, coverage) in enumerate(zip(shapes, seen, strict=True)):
    near = ndimage.maximum_filter(shape, 7)
    for other in (*shapes[:i], *shapes[i + 1 :]):
      near = near * (other == 0)
    coverage = np.where(near > 0, coverage, 0)
    union = np.maximum(coverage, shape).sum()
    fits.append(float(np.minimum(coverage, shape).sum() / union))
  return fits


def _halve(padded: Float[np.ndarray, 'h w']) -> Float[np.ndarray, 'h/2 w/2']:
  return 0.25 * (
    padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]
  )


def _windows(values: Float[np.ndarray, 'h w'], side: int) -> Float[np.ndarray, 'N S*S']:
  """Returns all windows, row by row."""
  return sliding_window_view(values, (side, side)).reshape(-1, side * side)
