"""The worlds of shapes: what prompts ask for and images show.

  full    one or two groups of six colours, five kinds and two sizes, on light and dark
          backgrounds, plain or with a gradient
  small   one group of four colours, three kinds and one size, on one light tone: for
          generators of a few million parameters

Both have the same renderer, defects, simulated annotators and records. In the small
world the background is always the same, no second group must be kept apart from the
first, and objects are large enough to be recognised although a part is damaged.
Lengths are fractions of the image's side.

Modules that worker processes import, as this one, must not import TensorFlow.
"""

from typing import NamedTuple

COLOURS = {
  'red': (215, 25, 30),
  'yellow': (250, 225, 30),
  'green': (20, 150, 50),
  'cyan': (20, 215, 225),
  'blue': (35, 65, 225),
  'purple': (145, 40, 195),
}
KINDS = ('circle', 'square', 'triangle', 'cross', 'ring')
# Centres of the rows and columns of places.
CELLS = (0.2, 0.5, 0.8)
# Between objects, and between objects and the frame.
GAP = 1.5 / 64
MARGIN = 1 / 64
# Positions of a group's members around its centre, in units of their spacing.
LAYOUTS = (
  ((0, 0),),
  ((-0.5, 0), (0.5, 0)),
  ((0, -0.5), (-0.5, 0.5), (0.5, 0.5)),
)


class World(NamedTuple):
  """What can be drawn.

  Attributes:
    colours: names in COLOURS.
    kinds: names in KINDS.
    radii: by size, the range of an object's radius. A world of one size never mentions
      it.
    groups: weights of one and two groups in a prompt.
    tone: the background of all images, RGB; None to sample light and dark ones.
  """

  colours: tuple[str, ...]
  kinds: tuple[str, ...]
  radii: dict[str, tuple[float, float]]
  groups: tuple[float, float]
  tone: tuple[int, int, int] | None


FULL = World(
  colours=tuple(COLOURS),
  kinds=KINDS,
  radii={'small': (6 / 64, 7 / 64), 'large': (11 / 64, 12 / 64)},
  groups=(0.55, 0.45),
  tone=None,
)
SMALL = World(
  colours=('red', 'yellow', 'green', 'blue'),
  kinds=('circle', 'triangle', 'cross'),
  radii={'small': (9 / 64, 10 / 64)},
  groups=(1, 0),
  tone=(225, 225, 225),
)
WORLDS = {'full': FULL, 'small': SMALL}
