"""Samples the content of a generated image: objects, contradictions and damages.

A prompt asks for one or two groups of equal shapes. Each group is drawn as asked
for, or with some attributes changed, or not at all. Lengths and positions are
fractions of the image's side, (0, 0) at the top left.

Modules that worker processes import, as this one, must not import TensorFlow.
"""

import bisect
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rahf.data.datasets.shapes.world import (
  CELLS,
  FULL,
  GAP,
  LAYOUTS,
  MARGIN,
  World,
)

DAMAGES = ('smear', 'warp', 'noise', 'tear')

# How often each attribute is made false; 'missing' leaves the whole group out.
_FALSE = {
  'colour': 0.36,
  'kind': 0.3,
  'missing': 0.12,
  'place': 0.12,
  'count': 0.06,
  'size': 0.04,
}
_DAMAGE_RADII = (7 / 64, 12 / 64)


class Attributes(NamedTuple):
  """The attributes of a group; row and column are 0 to 2 from the top left."""

  count: int
  size: str
  colour: str
  kind: str
  row: int
  column: int


class Group(NamedTuple):
  """Equal objects, as asked for and as drawn.

  Attributes:
    asked: what the prompt says.
    drawn: what the image shows; None for a missing group.
    stated: the attributes that the prompt mentions, 'place' for row and column.
    radius: half the side of an object's bounding box.
    centres: (x, y) of each object drawn; for a missing group, where it should be.
  """

  asked: Attributes
  drawn: Attributes | None
  stated: frozenset[str]
  radius: float
  centres: tuple[tuple[float, float], ...]

  @property
  def false(self) -> frozenset[str]:
    """The attributes that the image contradicts; a missing group's colour and kind."""
    if self.drawn is None:
      return frozenset({'colour', 'kind'})
    pairs = zip(Attributes._fields, self.asked, self.drawn, strict=True)
    return frozenset(name for name, asked, drawn in pairs if asked != drawn)


class Damage(NamedTuple):
  """A disc of spoilt pixels; strength in [0.6, 1], angle in radians."""

  kind: str
  x: float
  y: float
  radius: float
  strength: float
  angle: float


class Background(NamedTuple):
  """A gradient between two RGB colours along an angle in radians; plain if equal."""

  start: tuple[int, int, int]
  end: tuple[int, int, int]
  angle: float


class Scene(NamedTuple):
  """The content of one sample, from which image and prompt are made."""

  groups: tuple[Group, ...]
  damages: tuple[Damage, ...]
  background: Background


class Request(NamedTuple):
  """What a prompt asks for.

  Attributes:
    asked, stated: of each group, as in `Group`.
    colours, kinds: all of them; what no group has can be drawn by mistake.
  """

  asked: tuple[Attributes, ...]
  stated: tuple[frozenset[str], ...]
  colours: tuple[str, ...]
  kinds: tuple[str, ...]


class Defects(NamedTuple):
  """How often a generator errs: weights of 0, 1, 2 and 3 mistakes in an image."""

  false: tuple[float, ...]
  damages: tuple[float, ...]


# 30 % of the scenes are fully aligned, 30 % are undamaged.
USUAL = Defects(false=(0.3, 0.42, 0.2, 0.08), damages=(0.3, 0.34, 0.24, 0.12))
CLEAN = Defects(false=(1,), damages=(1,))


def sample_scene(rng: np.random.Generator, world: World = FULL) -> Scene:
  """Samples a request and a scene that was drawn for it, with the usual defects."""
  num_groups = weighted(rng, world.groups) + 1
  num_false = weighted(rng, USUAL.false)
  while True:
    # Resampling when groups collide is cheap, and simpler than a layout solver.
    groups = _draw_groups(rng, _ask(rng, num_groups, world), num_false, world)
    if _fits(groups):
      break
  return _finish(rng, groups, USUAL, world)


def sample_request(rng: np.random.Generator, world: World = FULL) -> Request:
  """Samples a request whose groups have room next to each other."""
  num_groups = weighted(rng, world.groups) + 1
  while True:
    request = _ask(rng, num_groups, world)
    if _fits(_draw_groups(rng, request, 0, world)):
      return request


def draw_request(
  rng: np.random.Generator, request: Request, defects: Defects, world: World = FULL
) -> Scene:
  """Draws a request as a generator with these defects does."""
  while True:
    groups = _draw_groups(rng, request, weighted(rng, defects.false), world)
    if _fits(groups):
      return _finish(rng, groups, defects, world)


def _finish(
  rng: np.random.Generator, groups: tuple[Group, ...], defects: Defects, world: World
) -> Scene:
  damages = _sample_damages(rng, groups, defects)
  if world.tone:
    return Scene(groups, damages, Background(world.tone, world.tone, 0.0))
  return Scene(groups, damages, _sample_background(rng))


def weighted(rng: np.random.Generator, weights: Sequence[float]) -> int:
  """Returns an index in proportion to the weights, much faster than `rng.choice`."""
  steps = list(itertools.accumulate(weights))
  return bisect.bisect(steps[:-1], rng.random() * steps[-1])


def pick(rng: np.random.Generator, options: Sequence):
  """Returns one of the options, all equally likely."""
  return options[rng.integers(len(options))]


def _ask(rng: np.random.Generator, num_groups: int, world: World) -> Request:
  # Colours and kinds are distinct within a prompt, and a false one is never taken from
  # another group, so that a word is true if it applies anywhere in the image.
  colours = [world.colours[i] for i in rng.permutation(len(world.colours))]
  kinds = [world.kinds[i] for i in rng.permutation(len(world.kinds))]
  sizes = tuple(world.radii)
  cells = rng.permutation(9)
  asked, stated = [], []
  for i in range(num_groups):
    count = weighted(rng, (0.5, 0.3, 0.2)) + 1
    # Three large objects would not fit next to each other.
    size = 'small' if count > 1 else pick(rng, sizes)
    row, column = divmod(int(cells[i]), 3)
    asked.append(Attributes(count, size, colours[i], kinds[i], row, column))
    said = {'colour', 'kind'}
    # "a" claims no number, "one" does.
    if count > 1 or rng.random() < 0.4:
      said.add('count')
    if len(sizes) > 1 and rng.random() < 0.7:
      said.add('size')
    if rng.random() < 0.8:
      said.add('place')
    stated.append(frozenset(said))
  return Request(tuple(asked), tuple(stated), tuple(colours), tuple(kinds))


def _draw_groups(
  rng: np.random.Generator, request: Request, num_false: int, world: World
) -> tuple[Group, ...]:
  """Draws the groups of a request, with some attributes false."""
  asked, stated, colours, kinds = request
  drawn: list[Attributes | None] = list(asked)
  for name, i in _choose_false(rng, asked, stated, num_false):
    other = len(asked) + i
    spare = {'colour': colours[other], 'kind': kinds[other]}
    drawn[i] = None if name == 'missing' else _falsify(rng, drawn[i], name, spare)
  return tuple(map(lambda *g: _place(rng, world, *g), asked, drawn, stated))


def _choose_false(
  rng: np.random.Generator,
  asked: Sequence[Attributes],
  stated: Sequence[frozenset[str]],
  number: int,
) -> list[tuple[str, int]]:
  """Returns up to `number` pairs (attribute made false, group)."""
  options = {(name, i): _FALSE[name] for i, said in enumerate(stated) for name in said}
  for i, attributes in enumerate(asked):
    # Only single objects are ever large, as asked and as drawn.
    if attributes.count > 1:
      options.pop(('size', i), None)
    if attributes.size == 'large':
      options.pop(('count', i), None)
    # Annotators could not point to where a group without a stated place should be.
    if len(asked) > 1 and 'place' in stated[i]:
      options['missing', i] = _FALSE['missing']
  chosen = []
  while options and len(chosen) < number:
    keys = sorted(options)
    choice = keys[weighted(rng, [options[key] for key in keys])]
    chosen.append(choice)
    options = {key: w for key, w in options.items() if not _excludes(choice, key)}
  return chosen


def _excludes(choice: tuple[str, int], other: tuple[str, int]) -> bool:
  """Returns whether two choices exclude each other; at most one group is missing."""
  (name, group), (other_name, other_group) = choice, other
  if group != other_group:
    return name == other_name == 'missing'
  pair = {name, other_name}
  return len(pair) == 1 or 'missing' in pair or pair == {'size', 'count'}


def _falsify(
  rng: np.random.Generator, drawn: Attributes, name: str, spare: dict[str, str]
) -> Attributes:
  if name in spare:
    return drawn._replace(**{name: spare[name]})
  if name == 'size':
    return drawn._replace(size='large' if drawn.size == 'small' else 'small')
  if name == 'count':
    return drawn._replace(count=pick(rng, [n for n in (1, 2, 3) if n != drawn.count]))
  # One word of the place becomes false: "left" is drawn on the right. The middle has no
  # opposite, so it moves to a corner.
  row, column = drawn.row, drawn.column
  if (row, column) == (1, 1):
    return drawn._replace(row=pick(rng, (0, 2)), column=pick(rng, (0, 2)))
  if row == 1 or (column != 1 and rng.random() < 0.5):
    return drawn._replace(column=2 - column)
  return drawn._replace(row=2 - row)


def _place(
  rng: np.random.Generator,
  world: World,
  asked: Attributes,
  drawn: Attributes | None,
  stated: frozenset[str],
) -> Group:
  shown = drawn or asked._replace(count=1)
  radius = rng.uniform(*world.radii[shown.size])
  middle = np.array([CELLS[shown.column], CELLS[shown.row]])
  middle += rng.uniform(-0.02, 0.02, 2)
  offsets = np.array(LAYOUTS[shown.count - 1]) * (2 * radius + GAP)
  centres = middle + offsets
  low, high = centres.min(0) - radius - MARGIN, centres.max(0) + radius + MARGIN
  centres += np.maximum(-low, 0) - np.maximum(high - 1, 0)
  return Group(asked, drawn, stated, radius, tuple(map(tuple, centres.tolist())))


def _fits(groups: tuple[Group, ...]) -> bool:
  """Returns whether objects are apart and no group fills another's asked-for place."""
  for i, group in enumerate(groups):
    for other in groups[i + 1 :]:
      reach = group.radius + other.radius + GAP
      distances = np.abs(np.array(group.centres)[:, None] - np.array(other.centres))
      if (distances.max(-1) < reach).any():
        return False
    elsewhere = group.drawn is None or group.drawn[4:] != group.asked[4:]
    taken = [other.drawn[4:] for other in groups if other.drawn and other is not group]
    if elsewhere and group.asked[4:] in taken:
      return False
  return True


def _sample_damages(
  rng: np.random.Generator, groups: tuple[Group, ...], defects: Defects
) -> tuple[Damage, ...]:
  objects = [(c, g.radius) for g in groups if g.drawn for c in g.centres]
  damages: list[Damage] = []
  for _ in range(weighted(rng, defects.damages)):
    radius = rng.uniform(*_DAMAGE_RADII)
    (x, y), size = pick(rng, objects)
    # Centred off an object's middle, so that its outline crosses the disc: smearing or
    # warping the inside of a large object would change nothing.
    angle, reach = rng.uniform(0, 2 * np.pi), size * rng.uniform(0.4, 0.8)
    x, y = x + reach * math.cos(angle), y + reach * math.sin(angle)
    x, y = (float(min(max(v, 0.08), 0.92)) for v in (x, y))
    if any(math.hypot(x - d.x, y - d.y) < 0.8 * (radius + d.radius) for d in damages):
      continue
    turn = rng.uniform(0, np.pi)
    strength = rng.uniform(0.6, 1)
    damages.append(Damage(pick(rng, DAMAGES), x, y, radius, strength, turn))
  return tuple(damages)


def _sample_background(rng: np.random.Generator) -> Background:
  dark = rng.random() < 0.3
  low, high = (10, 45) if dark else (195, 250)

  def tone() -> tuple[int, int, int]:
    grey = rng.integers(low, high)
    return tuple((grey + rng.integers(-5, 6, 3)).tolist())

  start = tone()
  end = tone() if rng.random() < 0.4 else start
  return Background(start, end, float(rng.uniform(0, 2 * np.pi)))
