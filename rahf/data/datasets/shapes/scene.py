"""The content of a generated sample: its objects, errors and damages.

A prompt asks for one or two groups of equal shapes. Each group is drawn as asked
for, or with some of its words made false, or not at all. Lengths and positions are
fractions of the image's side, (0, 0) at the top left.

No TensorFlow here nor in the other `shapes_*` modules: worker processes import them.
"""

import bisect
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SIZES = ('small', 'large')
COLOURS = {
  'red': (215, 25, 30),
  'yellow': (250, 225, 30),
  'green': (20, 150, 50),
  'cyan': (20, 215, 225),
  'blue': (35, 65, 225),
  'purple': (145, 40, 195),
}
KINDS = ('circle', 'square', 'triangle', 'cross', 'ring')
DAMAGES = ('smear', 'warp', 'noise', 'tear')

# How often each attribute is the false one; 'missing' leaves the whole group out.
_FALSE = {
  'colour': 0.36,
  'kind': 0.3,
  'missing': 0.12,
  'place': 0.12,
  'count': 0.06,
  'size': 0.04,
}
_CELLS = (0.2, 0.5, 0.8)
_RADII = {'small': (6 / 64, 7 / 64), 'large': (11 / 64, 12 / 64)}
_GAP = 1.5 / 64
_MARGIN = 1 / 64
_DAMAGE_RADII = (7 / 64, 12 / 64)
# Where the members of a group lie around its place, in units of their spacing.
_LAYOUTS = (
  ((0, 0),),
  ((-0.5, 0), (0.5, 0)),
  ((0, -0.5), (-0.5, 0.5), (0.5, 0.5)),
)


class Attributes(NamedTuple):
  """What can be said of a group; row and column count from the top left, 0 to 2."""

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
    stated: the attributes that the prompt has words for, 'place' for row and column.
    radius: half the side of an object's bounding box.
    centres: (x, y) of each object drawn; for a missing group, of its place.
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
  """Two RGB colours that blend along an angle in radians; equal for a plain one."""

  start: tuple[int, int, int]
  end: tuple[int, int, int]
  angle: float


class Scene(NamedTuple):
  """One sample before it is rendered and put in words."""

  groups: tuple[Group, ...]
  damages: tuple[Damage, ...]
  background: Background


def sample_scene(rng: np.random.Generator) -> Scene:
  """Draws a scene: 30 % are fully aligned, 30 % are undamaged."""
  num_groups = weighted(rng, (0.55, 0.45)) + 1
  num_false = weighted(rng, (0.3, 0.42, 0.2, 0.08))
  while True:
    # A fresh draw where groups collide is simpler than a layout solver, and cheap.
    groups = _sample_groups(rng, num_groups, num_false)
    if _fits(groups):
      break
  return Scene(groups, _sample_damages(rng, groups), _sample_background(rng))


def weighted(rng: np.random.Generator, weights: Sequence[float]) -> int:
  """Returns an index in proportion to the weights, much faster than `rng.choice`."""
  steps = list(itertools.accumulate(weights))
  return bisect.bisect(steps[:-1], rng.random() * steps[-1])


def pick(rng: np.random.Generator, options: Sequence):
  """Returns one of the options, all equally likely."""
  return options[rng.integers(len(options))]


def _sample_groups(
  rng: np.random.Generator, num_groups: int, num_false: int
) -> tuple[Group, ...]:
  # Colours and kinds are distinct within a prompt, and a false one is not one of the
  # others', so that a word's presence anywhere in the image speaks for it.
  colours = [list(COLOURS)[i] for i in rng.permutation(len(COLOURS))]
  kinds = [KINDS[i] for i in rng.permutation(len(KINDS))]
  cells = rng.permutation(9)
  asked, stated = [], []
  for i in range(num_groups):
    count = weighted(rng, (0.5, 0.3, 0.2)) + 1
    # Three large objects would not fit near one place.
    size = 'small' if count > 1 else pick(rng, SIZES)
    row, column = divmod(int(cells[i]), 3)
    asked.append(Attributes(count, size, colours[i], kinds[i], row, column))
    said = {'colour', 'kind'}
    # "a" claims no number, "one" does.
    if count > 1 or rng.random() < 0.4:
      said.add('count')
    if rng.random() < 0.7:
      said.add('size')
    if rng.random() < 0.8:
      said.add('place')
    stated.append(frozenset(said))

  drawn: list[Attributes | None] = list(asked)
  for name, i in _choose_false(rng, asked, stated, num_false):
    spare = {'colour': colours[num_groups + i], 'kind': kinds[num_groups + i]}
    drawn[i] = None if name == 'missing' else _falsify(rng, drawn[i], name, spare)
  return tuple(map(lambda *g: _place(rng, *g), asked, drawn, stated))


def _choose_false(
  rng: np.random.Generator,
  asked: list[Attributes],
  stated: list[frozenset[str]],
  number: int,
) -> list[tuple[str, int]]:
  """Returns up to `number` pairs of what is made false and in which group."""
  options = {(name, i): _FALSE[name] for i, said in enumerate(stated) for name in said}
  for i, attributes in enumerate(asked):
    # Only single objects are ever large, as asked and as drawn.
    if attributes.count > 1:
      options.pop(('size', i), None)
    if attributes.size == 'large':
      options.pop(('count', i), None)
    # Where a group without a place should be, nobody could point.
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
  """Whether both cannot be false; one group at most is missing."""
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
  # A place is false by one word: "left" is drawn on the right. The middle has no
  # opposite, so that it goes to a corner.
  row, column = drawn.row, drawn.column
  if (row, column) == (1, 1):
    return drawn._replace(row=pick(rng, (0, 2)), column=pick(rng, (0, 2)))
  if row == 1 or (column != 1 and rng.random() < 0.5):
    return drawn._replace(column=2 - column)
  return drawn._replace(row=2 - row)


def _place(
  rng: np.random.Generator,
  asked: Attributes,
  drawn: Attributes | None,
  stated: frozenset[str],
) -> Group:
  shown = drawn or asked._replace(count=1)
  radius = rng.uniform(*_RADII[shown.size])
  middle = np.array([_CELLS[shown.column], _CELLS[shown.row]])
  middle += rng.uniform(-0.02, 0.02, 2)
  offsets = np.array(_LAYOUTS[shown.count - 1]) * (2 * radius + _GAP)
  centres = middle + offsets
  low, high = centres.min(0) - radius - _MARGIN, centres.max(0) + radius + _MARGIN
  centres += np.maximum(-low, 0) - np.maximum(high - 1, 0)
  return Group(asked, drawn, stated, radius, tuple(map(tuple, centres.tolist())))


def _fits(groups: tuple[Group, ...]) -> bool:
  """Whether no objects touch and what should be elsewhere has no one in its place."""
  for i, group in enumerate(groups):
    for other in groups[i + 1 :]:
      reach = group.radius + other.radius + _GAP
      distances = np.abs(np.array(group.centres)[:, None] - np.array(other.centres))
      if (distances.max(-1) < reach).any():
        return False
    elsewhere = group.drawn is None or group.drawn[4:] != group.asked[4:]
    taken = [other.drawn[4:] for other in groups if other.drawn and other is not group]
    if elsewhere and group.asked[4:] in taken:
      return False
  return True


def _sample_damages(
  rng: np.random.Generator, groups: tuple[Group, ...]
) -> tuple[Damage, ...]:
  objects = [(c, g.radius) for g in groups if g.drawn for c in g.centres]
  damages: list[Damage] = []
  for _ in range(weighted(rng, (0.3, 0.34, 0.24, 0.12))):
    radius = rng.uniform(*_DAMAGE_RADII)
    (x, y), size = pick(rng, objects)
    # Off an object's middle, its outline runs through the disc: smearing or warping
    # the inside of a large object would change nothing.
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
