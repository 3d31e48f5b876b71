"""Raw annotations of one image, by several annotators, to the labels models learn.

RAHF, section 3: points become discs, one binary map per annotator, and the maps are
averaged; a word is misaligned by majority; Likert scores are averaged on [0, 1].
Axis letters: H height, W width, T label tokens.
"""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from rahf.data import schema
from rahf.errors import InputError

DISC_RADIUS = 1 / 20  # of the image's height

Point = tuple[float, float]
_NOT_ASKED = (None,) * len(schema.SCORES)


class Annotation(NamedTuple):
  """What one annotator said about one image.

  Attributes:
    implausibility_points: (x, y) of each artifact, as fractions of the width and
      the height, in [0, 1], (0, 0) at the top left.
    misalignment_points: likewise, of what contradicts the prompt.
    misaligned_words: positions among the prompt's label tokens, from 0.
    scores: Likert 1 (worst) to 5 (best) in the order of `schema.SCORES`; None or
      NaN where the question was not asked.
  """

  implausibility_points: Sequence[Point] = ()
  misalignment_points: Sequence[Point] = ()
  misaligned_words: Collection[int] = ()
  scores: Sequence[float | None] = _NOT_ASKED


class ConsolidatedLabels(NamedTuple):
  """The labels of one image.

  Attributes:
    maps: order of `schema.MAPS`; the share of annotators with a disc there, [0, 1].
    keyword_labels: per label token, 1 aligned, 0 misaligned.
    scores: order of `schema.SCORES`, [0, 1], higher is better; NaN where nobody
      was asked.
  """

  maps: Float[np.ndarray, '2 H W']
  keyword_labels: tuple[int, ...]
  scores: tuple[float, ...]


def consolidate(
  annotations: Sequence[Annotation], num_tokens: int, height: int, width: int
) -> ConsolidatedLabels:
  """Merges the annotators' marks on one image.

  A word is misaligned when more than half of the annotators ticked it. A score is
  the mean of (s - 1) / 4 over those who gave it.

  Args:
    annotations: one per annotator, at least one.
    num_tokens: number of the prompt's label tokens, `words.label_tokens`.
    height: of the maps, in pixels; the disc radius is height / 20.
    width: of the maps, in pixels.

  Raises:
    InputError: no annotation; a point outside the image, a word position outside
      the prompt, or a score outside 1 to 5.
  """
  if not annotations:
    raise InputError('no annotations to consolidate; give at least one annotator')
  points = [(a.implausibility_points, a.misalignment_points) for a in annotations]
  maps = np.mean(
    [[discs(marked, height, width) for marked in pair] for pair in points],
    axis=0,
    dtype=np.float32,
  )
  return ConsolidatedLabels(
    maps=maps,
    keyword_labels=_majority([a.misaligned_words for a in annotations], num_tokens),
    scores=_mean_scores([a.scores for a in annotations]),
  )


def discs(points: Sequence[Point], height: int, width: int) -> Bool[np.ndarray, 'H W']:
  """Returns the union of discs of radius height / 20 around one annotator's points.

  Pixel (row, column) is inside where its distance to (y * height, x * width) is at
  most the radius.

  Raises:
    InputError: a point outside [0, 1].
  """
  mask = np.zeros((height, width), bool)
  radius = height * DISC_RADIUS
  for x, y in points:
    if not (0 <= x <= 1 and 0 <= y <= 1):
      raise InputError(
        f'point ({x}, {y}) lies outside the image; give fractions of width and '
        'height in [0, 1]'
      )
    # Only the disc's bounding box is touched: maps have many pixels, discs few.
    top, left = (max(0, math.ceil(c - radius)) for c in (y * height, x * width))
    rows = np.arange(top, min(height, math.floor(y * height + radius) + 1))
    columns = np.arange(left, min(width, math.floor(x * width + radius) + 1))
    distance = (rows[:, None] - y * height) ** 2 + (columns - x * width) ** 2
    mask[top : top + len(rows), left : left + len(columns)] |= distance <= radius**2
  return mask


def _majority(ticked: Sequence[Collection[int]], num_tokens: int) -> tuple[int, ...]:
  votes = np.zeros(num_tokens, int)
  for words in ticked:
    for word in set(words):
      if not 0 <= word < num_tokens:
        raise InputError(
          f'misaligned word {word} is not among the {num_tokens} label tokens of '
          'the prompt; count them with rahf.data.words.label_tokens'
        )
      votes[word] += 1
  return tuple(int(2 * count <= len(ticked)) for count in votes)


def _mean_scores(likert: Sequence[Sequence[float | None]]) -> tuple[float, ...]:
  for row in likert:
    if len(row) != len(schema.SCORES):
      raise InputError(f'{len(row)} scores given; give one each of {schema.SCORES}')
  means = []
  for name, column in zip(schema.SCORES, zip(*likert, strict=True), strict=True):
    given = [s for s in column if s is not None and not math.isnan(s)]
    for score in given:
      if not 1 <= score <= 5:
        raise InputError(f'{name} score {score} is not on the Likert scale of 1 to 5')
    means.append(sum((s - 1) / 4 for s in given) / len(given) if given else math.nan)
  return tuple(means)
