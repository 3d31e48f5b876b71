"""The task of figure 1 of the paper: points, words and scores of one image.

An answer is {implausibility_points, misalignment_points: [[x, y], …],
misaligned_words: [position, …], scores: {name: 1 to 5}, nothing: [what]}, as in
`rahf.data.labels.raw`. `nothing` names the lists that were left empty on purpose, so
that an empty one is never an oversight.
"""

import math
from typing import Any

from rahf.data import label_words, schema
from rahf.data.labels.consolidate import DISC_RADIUS
from rahf.errors import InputError

POINTS = tuple(f'{name}_points' for name in schema.MAPS)
WORDS = 'misaligned_words'
LISTS = (*POINTS, WORDS)
MOST_POINTS = 200
# How many points and words of a gold question must be found, of those marked by either.
_SIMILAR = 0.5


def view(prompt: str) -> dict[str, Any]:
  """Returns what the page shows of a prompt: its pieces, with the number of each word.

  The pieces make up the whole prompt; a piece without a number separates words.
  """
  pieces, end = [], 0
  for number, (first, last) in enumerate(label_words.label_spans(prompt)):
    pieces += [[prompt[end:first], None]] * (end < first)
    pieces.append([prompt[first:last], number])
    end = last
  pieces += [[prompt[end:], None]] * (end < len(prompt))
  return {'pieces': pieces, 'radius': DISC_RADIUS}


def check(value: Any, prompt: str) -> dict[str, Any]:
  """Returns a complete answer, in a fixed form.

  Raises:
    InputError: something is missing or impossible.
  """
  found = check_draft(value, prompt)
  for name in schema.SCORES:
    if name not in found['scores']:
      raise InputError(f'the score {name} is missing')
  for name in LISTS:
    if not found[name] and name not in found['nothing']:
      raise InputError(f'{name}: mark something, or say that there is nothing')
  return found


def check_draft(value: Any, prompt: str) -> dict[str, Any]:
  """Returns an answer that may be incomplete, in a fixed form.

  Raises:
    InputError: something is impossible.
  """
  if not isinstance(value, dict):
    raise InputError('the answer is not an object')
  if unknown := value.keys() - {*LISTS, 'scores', 'nothing'}:
    raise InputError(f'unknown fields: {", ".join(map(str, sorted(unknown))):.100}')
  words = len(label_words.label_spans(prompt))
  found: dict[str, Any] = {name: _points(value, name) for name in POINTS}
  marked = _list(value, WORDS, words)
  if not all(type(word) is int and 0 <= word < words for word in marked):
    raise InputError(f'{WORDS}: not all are positions of the {words} words')
  found[WORDS] = sorted(set(marked))
  scores = value.get('scores', {})
  if not isinstance(scores, dict) or not all(
    name in schema.SCORES and type(score) is int and 1 <= score <= 5
    for name, score in scores.items()
  ):
    raise InputError(f'scores: give 1 to 5 for each of {", ".join(schema.SCORES)}')
  found['scores'] = {name: scores[name] for name in schema.SCORES if name in scores}
  nothing = _list(value, 'nothing', len(LISTS))
  if not all(name in LISTS for name in nothing):
    raise InputError(f'nothing: not all are among {", ".join(LISTS)}')
  if both := [name for name in nothing if found[name]]:
    raise InputError(f'{both[0]} are marked, and said to be nothing')
  found['nothing'] = sorted(set(nothing))
  return found


def agrees(value: dict[str, Any], known: dict[str, Any]) -> bool:
  """Returns whether an answer is close to a known one.

  Scores may differ by one step. At least half of the points and words that either has
  marked must be marked by both, points within two radii.
  """
  for name, score in known['scores'].items():
    if score is not None and abs(value['scores'][name] - score) > 1:
      return False
  for name in POINTS:
    if known[name] is not None and not _similar_points(value[name], known[name]):
      return False
  if known[WORDS] is None:
    return True
  union = {*value[WORDS], *known[WORDS]}
  both = {*value[WORDS]} & {*known[WORDS]}
  return not union or len(both) / len(union) >= _SIMILAR


def _similar_points(given: list, known: list) -> bool:
  def near(points: list, others: list) -> int:
    return sum(
      any(math.dist(point, other) <= 2 * DISC_RADIUS for other in others)
      for point in points
    )

  total = len(given) + len(known)
  return not total or (near(given, known) + near(known, given)) / total >= _SIMILAR


def _points(value: dict[str, Any], name: str) -> list[list[float]]:
  points = _list(value, name, MOST_POINTS)
  for point in points:
    if not (
      isinstance(point, list)
      and len(point) == 2
      and all(type(c) in (int, float) and 0 <= c <= 1 for c in point)
    ):
      raise InputError(f'{name}: {str(point)[:60]} is not [x, y] inside the image')
  return [[float(c) for c in point] for point in points]


def _list(value: dict[str, Any], name: str, most: int) -> list:
  found = value.get(name, [])
  if not isinstance(found, list) or len(found) > most:
    raise InputError(f'{name} is not a list of at most {most}')
  return found
