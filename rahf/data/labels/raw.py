"""Raw annotations: the answers of each annotator, before consolidation.

Data format: `<split>.annotations.jsonl` next to the shards of a split, if available,
with one JSON object per line for each annotator of each image:
  uid                    str           of the record
  annotator              str           annotator's name; informational only
  implausibility_points  [[x, y], …]   fractions of width and height, (0, 0) top left
  misalignment_points    [[x, y], …]   likewise
  misaligned_words       [int, …]      positions among the prompt's label tokens, or the
                                       words themselves
  scores                 {str: float}  by schema.SCORES, 1 to 5, higher is better
  trust                  float         the annotator's weight, 1 by default
Only uid is required. A field or score that is missing or null was not asked; an empty
list means that nothing was marked.
"""

import io
import itertools
import json
import math
from collections.abc import Iterable
from typing import Any

from etils import epath

from rahf.data import schema
from rahf.data.labels.consolidate import Annotation
from rahf.errors import InputError
from rahf.fileio import atomic_write, strict_json, table_files, text_files

FIELDS = (
  *('uid', 'annotator', *(f'{name}_points' for name in schema.MAPS)),
  *('misaligned_words', 'scores', 'trust'),
)


def path(directory: epath.PathLike, split: str) -> epath.Path:
  """Returns the path of a split's raw annotations; the file may not exist."""
  return epath.Path(directory) / f'{split}.annotations.jsonl'


def write(
  file: epath.Path, annotated: Iterable[tuple[str, Iterable[Annotation]]]
) -> None:
  """Writes annotations by uid; annotators are numbered."""
  with atomic_write.temp_then_rename(file) as partial, partial.open('w') as lines:
    for uid, annotations in annotated:
      for number, annotation in enumerate(annotations):
        row = {'uid': uid, 'annotator': f'{number}', **annotation._asdict()}
        asked = zip(schema.SCORES, annotation.scores, strict=True)
        row['scores'] = {
          name: score
          for name, score in asked
          if score is not None and not math.isnan(score)
        }
        row = {name: value for name, value in row.items() if value is not None}
        lines.write(json.dumps(row) + '\n')


def read(file: epath.Path) -> dict[str, list[Annotation]]:
  """Returns each image's annotations by uid.

  Raises:
    InputError: a line is not a valid annotation.
  """
  found: dict[str, list[Annotation]] = {}
  # The path may be one in a bucket.
  data = io.BytesIO(file.read_bytes())
  for number, line in table_files.json_lines(file, data):
    try:
      text_files.check(line)
      uid, annotation = _parse(strict_json.parse(line))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
      raise InputError(f'{file}:{number} is not an annotation: {error}') from None
    found.setdefault(uid, []).append(annotation)
  return found


def _parse(row: Any) -> tuple[str, Annotation]:
  row = _given(row, 'the line')
  _check('uid' in row, 'it has no uid')
  _check(not (unknown := row.keys() - set(FIELDS)), f'{unknown} are not in {FIELDS}')
  _check(isinstance(row['uid'], str), f'uid {row["uid"]!r} is not text')
  scores = _given(row.get('scores', {}), 'scores')
  unknown = scores.keys() - set(schema.SCORES)
  _check(not unknown, f'{unknown} are not in {schema.SCORES}')
  for score in scores.values():
    valid = _is_number(score) and 1 <= score <= 5
    _check(valid, f'score {score!r} is not between 1 and 5')
  points = [row.get(f'{name}_points') for name in schema.MAPS]
  for marked in points:
    is_list = marked is None or isinstance(marked, list)
    _check(is_list, f'{marked!r:.80} is not a list of points')
  for point in itertools.chain(*(marked or () for marked in points)):
    inside = (
      isinstance(point, list)
      and len(point) == 2
      and all(_is_number(c) and 0 <= c <= 1 for c in point)
    )
    _check(inside, f'point {point!r} is not [x, y] in fractions of the image')
  words = row.get('misaligned_words')
  _check(words is None or isinstance(words, list), f'{words!r} is not a list of words')
  for word in words or ():
    known = isinstance(word, str) or (type(word) is int and word >= 0)
    _check(known, f'misaligned word {word!r} is neither a position nor a word')
  trust = row.get('trust', 1.0)
  _check(_is_number(trust) and trust > 0, f'trust {trust!r} is not positive')
  return row['uid'], Annotation(
    *(None if marked is None else list(map(tuple, marked)) for marked in points),
    words,
    [scores.get(name) for name in schema.SCORES],
    trust,
  )


def _given(values: Any, what: str) -> dict[str, Any]:
  _check(isinstance(values, dict), f'{what} is {values!r:.80}, not an object')
  return {name: value for name, value in values.items() if value is not None}


def _check(condition: bool, complaint: str) -> None:
  if not condition:
    raise ValueError(complaint)


def _is_number(value: Any) -> bool:
  """Returns whether a value is a finite number; excludes JSON's true and NaN."""
  return type(value) in (int, float) and math.isfinite(value)
