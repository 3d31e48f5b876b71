"""Judges images of shapes without learning, and without knowing the scene.

The judge finds objects by templates of the world's renderer (`object_finder`) and
compares them with the prompt and the image:

  words    are the colours, kinds, numbers and places right that the prompt asks for?
  damage   how much of the image differs from an undamaged image of the same objects?
           A difference counts beyond what a shift by a pixel could explain, so that
           blur and weak noise are not damage. The largest mean difference of a
           window of 5 x 5 pixels decides, be it of a hole, a stray part or an outline.
           The background is what the image has, whatever its tone.

`benchmarks/template_judge.py` measures how often it is right.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy import ndimage

from rahf.data.datasets.shapes.object_finder import (
  Findings,
  FoundObject,
  find_objects,
)
from rahf.data.datasets.shapes.prompt_reader import AskedGroup, read_prompt
from rahf.data.datasets.shapes.scene import Scene
from rahf.data.datasets.shapes.templates import IMAGE_SIZE
from rahf.data.datasets.shapes.world import CELLS, MARGIN, WORLDS
from rahf.errors import InputError

# From this mean difference on, in levels of 0 to 255, an image is damaged. Chosen on
# true scenes of both worlds, plain and degraded, by `benchmarks/template_judge.py`.
DAMAGE_LEVEL = 9.0
# A smaller difference of a pixel is none.
_TOLERANCE = 40
_WINDOW = 5
# Groups that reach farther than this from their middle have no place.
_WIDEST = 0.45


class Answers(NamedTuple):
  """Whether the words of a prompt are right; None if it does not say.

  Attributes:
    colours, kinds: exactly those of the prompt are there.
    counts: every group whose number is stated has it.
    places: every group whose place is stated is there.
  """

  colours: bool
  kinds: bool
  counts: bool | None
  places: bool | None


class Verdict(NamedTuple):
  """What the judge says.

  Attributes:
    objects: what it found.
    words: whether the prompt is right.
    damage: in [0, 1); 0 for a perfect image, 0.5 at the level.
  """

  objects: tuple[FoundObject, ...]
  words: Answers
  damage: float

  @property
  def damaged(self) -> bool:
    return self.damage >= 0.5

  @property
  def undamaged(self) -> bool:
    """Whether it found objects without damage; an empty image shows none."""
    return bool(self.objects) and not self.damaged


def judge(
  image: UInt8[np.ndarray, 'H W 3'],
  prompt: str,
  world: str = 'full',
  level: float = DAMAGE_LEVEL,
) -> Verdict:
  """Judges an image.

  Args:
    image: square, RGB, at least 64 pixels wide. Larger ones are reduced to that.
    prompt: what it should show.
    world: one of `WORLDS`.
    level: from which mean difference on an image is damaged. A coder's reconstructions
      of undamaged scenes tell whether it needs another.

  Raises:
    InputError: the image does not fit, the prompt does not ask for shapes, or the
      world is unknown.
  """
  if world not in WORLDS:
    raise InputError(f'world {world!r} is unknown; use one of {tuple(WORLDS)}')
  asked = read_prompt(prompt)
  image = _reduce(image)
  findings = find_objects(image, world)
  worst = float(damage_map(image, findings).max())
  damage = worst / (worst + level)
  return Verdict(findings.objects, answer(asked, findings.objects), damage)


def damage_map(
  image: UInt8[np.ndarray, 'H W 3'], findings: Findings
) -> Float[np.ndarray, 'H W']:
  """Returns the mean difference around each pixel, in levels of 0 to 255.

  Args:
    image: what is judged.
    findings: what was found in it.
  """
  pixels = image.astype(np.float32)
  # Objects end before the frame: beyond it is background.
  expected = np.pad(findings.background, ((1, 1), (1, 1), (0, 0)), 'edge')
  expected[1:-1, 1:-1] = findings.expected
  low = ndimage.minimum_filter(expected, (3, 3, 1))[1:-1, 1:-1]
  high = ndimage.maximum_filter(expected, (3, 3, 1))[1:-1, 1:-1]
  outside = np.maximum(np.maximum(low - pixels, pixels - high), 0)
  difference = np.maximum(np.sqrt((outside**2).sum(-1)) - _TOLERANCE, 0)
  return ndimage.uniform_filter(difference, _WINDOW, mode='constant')


def answer(asked: Sequence[AskedGroup], objects: Sequence[FoundObject]) -> Answers:
  """Compares a prompt with objects.

  Objects of a colour are a group. Asked and found groups are paired so that as many
  words as possible are right; a group that is not there has no right number or place.
  """
  groups = {}
  for shown in objects:
    groups.setdefault(shown.colour, []).append(shown)
  # One None for each asked group, so that all may be missing.
  options = itertools.permutations([*groups.values(), *[None] * len(asked)], len(asked))
  pairs = max((list(zip(asked, option, strict=True)) for option in options), key=_right)
  counts = [shown and len(shown) == a.count for a, shown in pairs if a.count]
  places = [shown and place_of(shown) == a.place for a, shown in pairs if a.place]
  return Answers(
    colours={a.colour for a in asked} == set(groups),
    kinds={a.kind for a in asked} == {shown.kind for shown in objects},
    counts=all(counts) if counts else None,
    places=all(places) if places else None,
  )


def true_answers(scene: Scene) -> Answers:
  """Returns the answers that follow from the scene."""
  groups = scene.groups
  false = [group.false for group in groups]
  counts = [g.drawn and 'count' not in g.false for g in groups if 'count' in g.stated]
  places = [
    g.drawn and not {'row', 'column'} & g.false for g in groups if 'place' in g.stated
  ]
  return Answers(
    colours=all('colour' not in words for words in false),
    kinds=all('kind' not in words for words in false),
    counts=all(counts) if counts else None,
    places=all(places) if places else None,
  )


def place_of(objects: Sequence[FoundObject]) -> tuple[int, int]:
  """Returns row and column of a group, 0 to 2 from the top left."""
  place = []
  for axis in ('y', 'x'):
    low = min(getattr(o, axis) - o.radius for o in objects) - MARGIN
    high = max(getattr(o, axis) + o.radius for o in objects) + MARGIN
    # Where such a group is drawn: near the frame, it is moved inwards.
    reach = min((high - low) / 2, _WIDEST)
    cells = np.clip(CELLS, reach, 1 - reach)
    place.append(int(np.abs(cells - (low + high) / 2).argmin()))
  return tuple(place)


def _right(pairs: Sequence[tuple[AskedGroup, list[FoundObject] | None]]) -> int:
  """Returns how many words are right, colours and kinds first."""
  return sum(
    4 * (shown[0].colour == a.colour)
    + 4 * any(o.kind == a.kind for o in shown)
    + 2 * (place_of(shown) == a.place)
    + (len(shown) == a.count)
    + 1
    for a, shown in pairs
    if shown
  )


def _reduce(image: UInt8[np.ndarray, 'H W 3']) -> UInt8[np.ndarray, 'h w 3']:
  side = len(image)
  right = image.shape == (side, side, 3) and side >= IMAGE_SIZE
  if not right or image.dtype != np.uint8:
    raise InputError(
      f'the judge takes square RGB images of uint8, at least {IMAGE_SIZE} pixels wide, '
      f'not {image.dtype} of shape {image.shape}; resize or convert it'
    )
  if side == IMAGE_SIZE:
    return image
  size = IMAGE_SIZE, IMAGE_SIZE
  return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
