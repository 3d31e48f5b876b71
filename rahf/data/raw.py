"""Raw annotations: what each annotator said of each image, before consolidation.

Data format, `<split>.annotations.jsonl` beside the shards of a split where it is known;
a line, one JSON object, for each annotator of each image:
  uid                    str           of the record
  annotator              str           who it was; the same word for the same person
  implausibility_points  [[x, y], …]   fractions of width and height, (0, 0) top left
  misalignment_points    [[x, y], …]   likewise
  misaligned_words       [int, …]      positions among the prompt's label tokens, or the
                                       words themselves
  scores                 {str: float}  by schema.SCORES, 1 to 5, higher is better
  trust                  float         the annotator's weight, 1 if it is left out
All but uid may be left out. What is, was not asked; an empty list was asked, and
nothing was marked.
"""

import json
import os
from collections.abc import Iterable

from etils import epath

from rahf.data import schema
from rahf.data.consolidate import Annotation
from rahf.errors import InputError

FIELDS = (
  *('uid', 'annotator', *(f'{name}_points' for name in schema.MAPS)),
  *('misaligned_words', 'scores', 'trust'),
)


def path(directory: epath.PathLike, split: str) -> epath.Path:
  """Returns where the raw annotations of a split are, if there are any."""
  return epath.Path(directory) / f'{split}.annotations.jsonl'


def write(
  file: epath.Path, annotated: Iterable[tuple[str, Iterable[Annotation]]]
) -> None:
  """Writes the annotations of images given by uid; annotators are numbered."""
  # Another process may be writing the same.
  partial = file.with_name(f'{file.name}.{os.getpid()}')
  with partial.open('w') as lines:
    for uid, annotations in annotated:
      for number, annotation in enumerate(annotations):
        row = {'uid': uid, 'annotator': f'{number}', **annotation._asdict()}
        asked = zip(schema.SCORES, annotation.scores, strict=True)
        row['scores'] = {name: score for name, score in asked if score is not None}
        row = {name: value for name, value in row.items() if value is not None}
        lines.write(json.dumps(row) + '\n')
  partial.replace(file)


def read(file: epath.Path) -> dict[str, list[Annotation]]:
  """Returns the annotations of each image by uid.

  Raises:
    InputError: a line is not an annotation; says which.
  """
  found: dict[str, list[Annotation]] = {}
  with file.open() as lines:
    for number, line in enumerate(lines, start=1):
      try:
        uid, annotation = _parse(json.loads(line))
      except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f'{file}:{number} is not an annotation: {error!r}') from None
      found.setdefault(uid, []).append(annotation)
  return found


def _parse(row: dict) -> tuple[str, Annotation]:
  if unknown := row.keys() - set(FIELDS):
    raise ValueError(f'{min(unknown)!r} is none of {", ".join(FIELDS)}')
  scores = row.get('scores', {})
  if unknown := scores.keys() - set(schema.SCORES):
    raise ValueError(f'{min(unknown)!r} is none of {schema.SCORES}')
  points = (row.get(f'{name}_points') for name in schema.MAPS)
  words = row.get('misaligned_words')
  if words is not None and not all(isinstance(word, int | str) for word in words):
    raise ValueError(f'misaligned_words {words} are neither positions nor words')
  return row['uid'], Annotation(
    *(None if p is None else [(float(x), float(y)) for x, y in p] for p in points),
    words,
    [scores.get(name) for name in schema.SCORES],
    float(row.get('trust', 1)),
  )
