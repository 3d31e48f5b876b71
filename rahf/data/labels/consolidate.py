"""Consolidates several annotators' answers into one image's labels.

RAHF, section 3: points become discs, one binary map per annotator, and the maps are
averaged; a word is misaligned by majority vote; Likert scores are averaged on [0, 1].
Annotators are weighted by trust, equally by default. Only annotators who were asked a
question count for it; a label that nobody was asked about is missing, not clean.
Axis letters: H height, W width, T label tokens.
"""

import math
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rahf.data import label_words, schema
from rahf.errors import InputError

DISC_RADIUS = 1 / 20  # of the image's height
GAUSSIAN_SIGMA = 1 / 20  # of the image's shorter side, as in Rapidata's maps

Point = tuple[float, float]
_NOT_ASKED = (None,) * len(schema.SCORES)


class Annotation(NamedTuple):
  """One annotator's answers for one image; None means not asked.

  Attributes:
    implausibility_points: (x, y) of each artifact, as fractions of width and height
      in [0, 1], (0, 0) at the top left.
    misalignment_points: likewise, of whatever contradicts the prompt.
    misaligned_words: positions among the prompt's label tokens, from 0, or the words
      themselves. A word marks all its occurrences, and all of the label token that
      contains it.
    scores: Likert 1 (worst) to 5 (best) in the order of `schema.SCORES`; None or
      NaN if not asked.
    trust: the annotator's weight, above 0.
  """

  implausibility_points: Sequence[Point] | None = ()
  misalignment_points: Sequence[Point] | None = ()
  misaligned_words: Collection[int | str] | None = ()
  scores: Sequence[float | None] = _NOT_ASKED
  trust: float = 1.0


class ConsolidatedLabels(NamedTuple):
  """The labels of one image.

  Attributes:
    maps: order of `schema.MAPS`, H x W, the mean of the annotators' maps, [0, 1];
      None if nobody was asked.
    keyword_labels: per label token, 1 aligned, 0 misaligned (marked by more than half
      of the annotators); () if nobody was asked.
    misaligned: per label token, the share of annotators who marked it, [0, 1].
    scores: order of `schema.SCORES`, [0, 1], higher is better; NaN if nobody was asked.
    differences: likewise, largest minus smallest score; NaN if fewer than two
      annotators were asked.
  """

  maps: tuple[Float[np.ndarray, 'H W'] | None, ...]
  keyword_labels: tuple[int, ...]
  misaligned: tuple[float, ...]
  scores: tuple[float, ...]
  differences: tuple[float, ...]


# Makes a map of one annotator's points, given height and width.
Draw = Callable[[Sequence[Point], int, int], Float[np.ndarray, 'H W']]


def discs(points: Sequence[Point], height: int, width: int) -> Float[np.ndarray, 'H W']:
  """Returns the union of discs of radius height / 20 around one annotator's points.

  Pixel (row, column) is 1 where its distance to (y * height, x * width) is at most the
  radius, else 0.

  Raises:
    InputError: a point is outside [0, 1].
  """
  mask = np.zeros((height, width), np.float32)
  radius = height * DISC_RADIUS
  for x, y in _checked(points):
    # For speed, only the disc's bounding box is computed.
    top, left = (max(0, math.ceil(c - radius)) for c in (y * height, x * width))
    rows = np.arange(top, min(height, math.floor(y * height + radius) + 1))
    columns = np.arange(left, min(width, math.floor(x * width + radius) + 1))
    distance = (rows[:, None] - y * height) ** 2 + (columns - x * width) ** 2
    box = mask[top : top + len(rows), left : left + len(columns)]
    np.maximum(box, distance <= radius**2, out=box)
  return mask


def gaussians(
  points: Sequence[Point], height: int, width: int
) -> Float[np.ndarray, 'H W']:
  """Returns the maximum of Gaussians with peak 1 around one annotator's points.

  Their standard deviation is 1/20 of the shorter side.

  Raises:
    InputError: a point is outside [0, 1].
  """
  sigma = min(height, width) * GAUSSIAN_SIGMA
  heat = np.zeros((height, width), np.float32)
  for x, y in _checked(points):
    # A 2-D Gaussian is the product of two 1-D ones.
    down, across = (
      np.exp(-(((np.arange(side) - c * side) / sigma) ** 2) / 2)
      for side, c in ((height, y), (width, x))
    )
    np.maximum(heat, np.outer(down, across), out=heat)
  return heat


DRAW_FUNCTIONS = {'discs': discs, 'gaussians': gaussians}


def consolidate(
  annotations: Sequence[Annotation],
  tokens: Sequence[str],
  height: int,
  width: int,
  draw: Draw = discs,
) -> ConsolidatedLabels:
  """Merges the annotators' marks on one image.

  Args:
    annotations: one per annotator, at least one.
    tokens: the prompt's `label_words.label_tokens`.
    height, width: of the maps, in pixels.
    draw: makes a map of one annotator's points, `discs` or `gaussians`.

  Raises:
    InputError: there is no annotation, a point is outside the image, a word is not in
      the prompt, a score is not between 1 and 5, or a trust is not positive.
  """
  if not annotations:
    raise InputError('no annotations to consolidate; give at least one annotator')
  for annotation in annotations:
    if not 0 < annotation.trust < math.inf:
      raise InputError(
        f'trust {annotation.trust} is not positive; leave out annotators that are not '
        'trusted'
      )
  maps = (
    _mean_map(annotations, f'{name}_points', height, width, draw)
    for name in schema.MAPS
  )
  misaligned = _marked(annotations, tokens)
  scores, differences = mean_scores(annotations)
  return ConsolidatedLabels(
    maps=tuple(maps),
    keyword_labels=tuple(int(share <= 0.5) for share in misaligned),
    misaligned=misaligned,
    scores=scores,
    differences=differences,
  )


def word_positions(marked: Collection[int | str], tokens: Sequence[str]) -> set[int]:
  """Returns the positions of the marked words among the prompt's label tokens.

  Raises:
    InputError: a marked word is not in the prompt.
  """
  positions = set()
  # A label token may contain line breaks and other white space, a marked word may not.
  names = [
    {i, token, *(token[start:end] for start, end in label_words.word_spans(token))}
    for i, token in enumerate(tokens)
  ]
  for word in marked:
    found = {i for i, known in enumerate(names) if word in known}
    if not found:
      raise InputError(
        f'misaligned word {word!r} is not among the {len(tokens)} label tokens of the '
        f'prompt, {", ".join(map(repr, tokens))}; see '
        'rahf.data.label_words.label_tokens'
      )
    positions |= found
  return positions


def mean_scores(
  annotations: Sequence[Annotation],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Returns `scores` and `differences` of ConsolidatedLabels.

  Raises:
    InputError: a score is not between 1 and 5.
  """
  for annotation in annotations:
    _check_scores(annotation.scores)
  rows = [[np.nan if s is None else s for s in a.scores] for a in annotations]
  shape = len(annotations), len(schema.SCORES)
  scores = (np.reshape(np.array(rows, np.float64), shape) - 1) / 4
  means, differences = [], []
  trust = np.array([a.trust for a in annotations])
  for column in scores.T:
    known = ~np.isnan(column)
    given = column[known]
    means.append(np.average(given, weights=trust[known]) if given.size else np.nan)
    differences.append(np.ptp(given) if given.size > 1 else np.nan)
  return tuple(map(float, means)), tuple(map(float, differences))


def _checked(points: Sequence[Point]) -> Sequence[Point]:
  for x, y in points:
    if not (0 <= x <= 1 and 0 <= y <= 1):
      raise InputError(
        f'point ({x}, {y}) lies outside the image; give fractions of width and '
        'height in [0, 1]'
      )
  return points


def _mean_map(
  annotations: Sequence[Annotation], field: str, height: int, width: int, draw: Draw
) -> Float[np.ndarray, 'H W'] | None:
  asked = [a for a in annotations if getattr(a, field) is not None]
  if not asked:
    return None
  total = np.zeros((height, width))
  for annotation in asked:
    total += annotation.trust * draw(getattr(annotation, field), height, width)
  return (total / sum(a.trust for a in asked)).astype(np.float32)


def _marked(
  annotations: Sequence[Annotation], tokens: Sequence[str]
) -> tuple[float, ...]:
  """Returns the share of the asked annotators who marked each word."""
  asked = [a for a in annotations if a.misaligned_words is not None]
  votes = np.zeros(len(tokens))
  for annotation in asked:
    for position in word_positions(annotation.misaligned_words, tokens):
      votes[position] += annotation.trust
  if not asked:
    return ()
  return tuple((votes / sum(a.trust for a in asked)).tolist())


def _check_scores(scores: Sequence[float | None]) -> None:
  if len(scores) != len(schema.SCORES):
    raise InputError(f'{len(scores)} scores given; give one each of {schema.SCORES}')
  for name, score in zip(schema.SCORES, scores, strict=True):
    asked = score is not None and not math.isnan(score)
    if asked and not 1 <= score <= 5:
      raise InputError(f'{name} score {score} is not on the Likert scale of 1 to 5')
