"""Draws anew what a model finds implausible in an image, and keeps what gets better.

As figure 9 of the paper: where the heatmap of an image is above a threshold, widened, a
generator inpaints; of several candidates the best by a score is kept. The image itself
is one of them, so that none gets worse by that score.

Axis letters: H W image size.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from rahf.inference.feedback import Feedback
from rahf.inference.image_generator import Inpainter, InpaintRequest
from rahf.inference.scorer import Scorer
from rahf.learning.score_expression import Expression

# Why there was no further round.
NO_FLAW = 'no flaw above the threshold'
ALL_FLAWED = 'flaws cover the whole image'


@dataclasses.dataclass(frozen=True)
class RepairOptions:
  """What is drawn anew, and how often.

  Attributes:
    heatmap: its name.
    threshold: value in [0, 1] from which on a pixel is flawed. Three annotators mark
      most images: 1/3 means that one of them saw a flaw.
    widen: the mask grows by this share of the image's height in every direction.
    candidates: drawn in a round.
    rounds: at most; each starts from the best image so far.
    seed: of the candidates' noise.
  """

  heatmap: str = 'implausibility'
  threshold: float = 1 / 3
  widen: float = 1 / 40
  candidates: int = 4
  rounds: int = 1
  seed: int = 0


class Repair(NamedTuple):
  """An image before and after.

  Attributes:
    image: the best one.
    before: its feedback at the start.
    mask: all that was drawn anew; what is outside is as it was, bit for bit.
    tried: the mask with that of the last round, even if no candidate was better.
    values: of the score by which is chosen: that of the original, then of the best
      image after each round.
    end: why no further round was made; '' after the last one.
  """

  image: UInt8[np.ndarray, 'H W 3']
  before: Feedback
  mask: Bool[np.ndarray, 'H W']
  tried: Bool[np.ndarray, 'H W']
  values: list[float]
  end: str


def flaw_mask(
  heatmap: Float[np.ndarray, 'H W'], threshold: float, widen: float
) -> Bool[np.ndarray, 'H W']:
  """Returns where a heatmap reaches a threshold, widened by a share of its height."""
  flawed = heatmap >= threshold
  if not flawed.any():
    return flawed
  # Distance in pixels to the nearest flawed pixel.
  return ndimage.distance_transform_edt(~flawed) <= widen * len(heatmap)


def repair(
  image: UInt8[np.ndarray, 'H W 3'],
  prompt: str,
  scorer: Scorer,
  inpainter: Inpainter,
  by: Expression,
  options: RepairOptions,
) -> Repair:
  """Repairs one image.

  Args:
    by: what the best candidate is chosen by, higher is better.

  Raises:
    InputError: the image or the prompt cannot be used by one of the models, or a score
      is not finite.
  """
  (found,) = scorer.score([image], prompt)
  before, values = found, [by.finite_value(found.scores)]
  changed = np.zeros(image.shape[:2], bool)
  for number in range(options.rounds):
    heatmap = found.heatmaps[options.heatmap]
    mask = flaw_mask(heatmap, options.threshold, options.widen)
    if not mask.any():
      return Repair(image, before, changed, changed, values, NO_FLAW)
    if mask.all():
      return Repair(image, before, changed, changed | mask, values, ALL_FLAWED)
    candidates = _draw(image, prompt, mask, inpainter, number, options)
    feedback = scorer.score(candidates, prompt)
    scores = [by.finite_value(one.scores) for one in feedback]
    best = int(np.argmax(scores))
    if not scores[best] > values[-1]:
      reason = 'no candidate was better'
      return Repair(image, before, changed, changed | mask, values, reason)
    image, found, changed = candidates[best], feedback[best], changed | mask
    values.append(scores[best])
  return Repair(image, before, changed, changed, values, '')


def _draw(
  image: np.ndarray,
  prompt: str,
  mask: np.ndarray,
  inpainter: Inpainter,
  number: int,
  options: RepairOptions,
) -> Sequence[np.ndarray]:
  """Draws the candidates of a round."""
  first = number * options.candidates
  requests = [
    InpaintRequest(prompt, options.seed, first + i, image, mask)
    for i in range(options.candidates)
  ]
  return [*inpainter.inpaint(requests)]
