"""Simulates three annotators of a generated scene, and computes their expected labels.

Scores follow from defects. Each has a latent value of at most 5:
  plausibility  1 + 4 exp(-0.6 d), d the sum of the damages' severities; a
                severity is strength times area, 1 for a typical damage.
  alignment     1 + 4 exp(-0.6 m), m the number of false words, 2 for a missing
                group.
  aesthetics    grows with the contrast of objects and background and with a colour
                gradient, falls with the damages.
  overall       0.5 plausibility + 0.5 alignment + 0.3 (aesthetics - 3).
Annotators add noise, round, and clip to 1..5. Each marks the centre of every damage and
every object of a group that contradicts the prompt (for a missing group, where it
should be), with jitter and misses, and ticks the false words, with misses and a few
errors.
"""

import math

import numpy as np
from scipy import ndimage, special

from rahf.data import schema
from rahf.data.datasets.shapes.scene import Damage, Scene
from rahf.data.datasets.shapes.world import COLOURS
from rahf.data.labels.consolidate import Annotation, ConsolidatedLabels, Point, discs

ANNOTATORS = 3
JITTER = 1.1 / 64  # standard deviation of a mark along each axis
MISS_RATE = 0.07  # of damages, contradicting objects and false words
FALSE_MARK_RATE = 0.004  # chance to tick a true word
SCORE_NOISE = 0.42  # standard deviation in Likert steps

_LUMA = np.array([0.299, 0.587, 0.114])
_TYPICAL_DAMAGE = 0.8 * (9.5 / 64) ** 2


def annotate(
  scene: Scene, misaligned: tuple[int, ...], num_tokens: int, rng: np.random.Generator
) -> list[Annotation]:
  """Simulates the annotators.

  Args:
    scene: what is shown.
    misaligned: positions of the false words among the prompt's label tokens.
    num_tokens: number of label tokens.
    rng: for jitter, misses, false marks and score noise.
  """
  # The probability that each word is ticked.
  chance = np.full(num_tokens, FALSE_MARK_RATE)
  chance[list(misaligned)] = 1 - MISS_RATE
  targets = defect_points(scene)
  latent = np.array(latent_scores(scene))
  annotations = []
  for _ in range(ANNOTATORS):
    marked = [_mark(points, rng) for points in targets]
    ticked = np.flatnonzero(rng.random(num_tokens) < chance)
    likert = np.clip(np.round(latent + rng.normal(0, SCORE_NOISE, 4)), 1, 5)
    annotations.append(Annotation(*marked, ticked.tolist(), likert.tolist()))
  return annotations


def expected_labels(
  scene: Scene,
  misaligned: tuple[int, ...],
  num_tokens: int,
  height: int,
  width: int,
) -> ConsolidatedLabels:
  """Returns the expected consolidated labels over the annotators' noise.

  This is the best that a perfect model can predict. Overlapping discs of one annotator
  are treated as independent; keyword labels are the true ones.
  """
  maps = np.zeros((len(schema.MAPS), height, width), np.float32)
  # On a grid four times as fine: at 64 px, a disc's edge alone would be off by up to
  # half a pixel.
  fine_height, fine_width = 4 * height, 4 * width
  sigma = (JITTER * fine_height, JITTER * fine_width)
  for total, points in zip(maps, defect_points(scene), strict=True):
    unmarked = np.ones((height, width))
    for point in points:
      disc = discs([point], fine_height, fine_width).astype(np.float32)
      seen = ndimage.gaussian_filter(disc, sigma, mode='constant')[::4, ::4]
      unmarked *= 1 - (1 - MISS_RATE) * seen
    total += 1 - unmarked
  # The mean of round(latent + noise) clipped to 1..5: one step up at each half.
  steps = np.array([1.5, 2.5, 3.5, 4.5])
  latent = np.array(latent_scores(scene))[:, None]
  scores = special.ndtr((latent - steps) / SCORE_NOISE).mean(1)
  labels = tuple(int(i not in misaligned) for i in range(num_tokens))
  chances = tuple(
    1 - MISS_RATE if i in misaligned else FALSE_MARK_RATE for i in range(num_tokens)
  )
  unknown = (math.nan,) * len(schema.SCORES)
  return ConsolidatedLabels(
    tuple(maps), labels, chances, tuple(scores.tolist()), unknown
  )


def defect_points(scene: Scene) -> tuple[list[Point], list[Point]]:
  """Returns where damages are and where the image contradicts the prompt."""
  contradicting = [
    centre for group in scene.groups if group.false for centre in group.centres
  ]
  return [(damage.x, damage.y) for damage in scene.damages], contradicting


def latent_scores(scene: Scene) -> tuple[float, float, float, float]:
  """Returns noise-free scores on the Likert scale, in the order of `schema.SCORES`."""
  damage = sum(severity(damage) for damage in scene.damages)
  mistakes = sum(_mistakes(group.false) for group in scene.groups)
  plausibility = 1 + 4 * math.exp(-0.6 * damage)
  alignment = 1 + 4 * math.exp(-0.6 * mistakes)
  gradient = scene.background.start != scene.background.end
  aesthetics = 1.6 + 4.5 * _contrast(scene) + 0.8 * gradient - 0.4 * damage
  aesthetics = min(max(aesthetics, 1), 5)
  overall = 0.5 * plausibility + 0.5 * alignment + 0.3 * (aesthetics - 3)
  return plausibility, alignment, aesthetics, overall


def severity(damage: Damage) -> float:
  """Returns strength times area, 1 for a typical damage."""
  return damage.strength * damage.radius**2 / _TYPICAL_DAMAGE


def _mark(points: list[Point], rng: np.random.Generator) -> list[Point]:
  if not points:
    return []
  jittered = np.array(points) + rng.normal(0, JITTER, (len(points), 2))
  seen = rng.random(len(points)) >= MISS_RATE
  return [tuple(point) for point in jittered[seen].clip(0, 1).tolist()]


def _mistakes(false: frozenset[str]) -> int:
  # A wrong row and column count as one wrong place.
  return len(false) - (false >= {'row', 'column'})


def _contrast(scene: Scene) -> float:
  """Returns the mean brightness difference of objects and background, [0, 1]."""
  background = np.mean([scene.background.start, scene.background.end], axis=0) @ _LUMA
  shown = [COLOURS[group.drawn.colour] for group in scene.groups if group.drawn]
  return float(np.abs(np.array(shown) @ _LUMA - background).mean() / 255)
