"""Scores all candidates of a source with one or several models."""

import io
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from tqdm import tqdm

from rahf.data.images import inputs
from rahf.data.sources.item import Item, Load
from rahf.data.sources.source import Source
from rahf.fileio.table_files import shown
from rahf.inference.feedback import Feedback
from rahf.inference.output_ranges import Output
from rahf.inference.score_stream import Prepared, prepare_image, score_stream
from rahf.inference.scorer import Scorer
from rahf.learning.best_of_n import Candidate
from rahf.learning.score_expression import Expression

# The column of the original prompts, unless another is given.
ORIGINAL = 'original'
THUMBNAIL = 128  # The longer side, in pixels.


class Scored(NamedTuple):
  """A candidate and a small WebP picture of it, b'' if it cannot be read.

  Attributes:
    truncated: names of the models for which the prompt was too long.
  """

  candidate: Candidate
  thumbnail: bytes = b''
  truncated: tuple[str, ...] = ()


def full_name(model: str, score: str) -> str:
  """Returns the name of a model's score.

  Args:
    model: its name, '' if it is the only one.
  """
  return f'{model}.{score}' if model else score


def known_scores(models: Mapping[str, Any]) -> dict[str, Output]:
  """Returns the scores of several models, or of their descriptions, by full name."""
  return {
    full_name(name, score): output
    for name, model in models.items()
    for score, output in model.outputs.scores.items()
  }


def score(
  source: Source,
  models: Mapping[str, Scorer],
  expression: Expression,
  column: str = '',
) -> Iterator[Scored]:
  """Scores each image against its original prompt, with a progress bar.

  Args:
    source: opened with `extra=column or ORIGINAL`.
    models: by name; of equal batch sizes.
    column: of the original prompts. '' for ORIGINAL, and where an image has no such
      column, its prompt.

  Yields:
    A result for each image in the order of the source; one that cannot be read or has
    scores that are not finite has an error.
  """

  def prepare(row: tuple[int, Load]) -> Prepared[Scored]:
    return _prepare(models, column, *row)

  rows = source.read(lambda _: True)
  with tqdm(
    total=source.rows, desc='Scoring', unit='image', mininterval=1, disable=None
  ) as bar:
    for one, found in score_stream(models, rows, prepare, bar, scores_only=True):
      yield _with_scores(one, found[0], expression) if found else one


def _prepare(
  models: Mapping[str, Scorer], column: str, position: int, load: Load
) -> Prepared[Scored]:
  item = load()
  original, error = _original(item, column)
  prompt = item.prompt if isinstance(item.prompt, str) else ''
  uid = item.uid or str(position)
  candidate = Candidate(position, uid, original, prompt, {}, math.nan)
  error = item.error or error
  if error:
    return Prepared(Scored(candidate._replace(error=error)))
  try:
    pixels = inputs.read_pixels(item.image)
    examples = prepare_image(models, pixels, original)
    return Prepared(Scored(candidate, _thumbnail(pixels)), [examples])
  except Exception as reason:
    # One bad file must not end the job; decoders raise many kinds.
    error = str(reason) or type(reason).__name__
    return Prepared(Scored(candidate._replace(error=error)))


def _original(item: Item, column: str) -> tuple[str, str]:
  """Returns the original prompt of an image, or '' and an error."""
  text, name = item.extra, column or ORIGINAL
  if text is None and not column:
    text, name = item.prompt, 'prompt'
  if isinstance(text, str) and text.strip():
    return text, ''
  return '', f'its {name} is {shown(text)}'


def _thumbnail(pixels: UInt8[np.ndarray, 'H W 3']) -> bytes:
  image = Image.fromarray(pixels)
  image.thumbnail((THUMBNAIL, THUMBNAIL))
  file = io.BytesIO()
  image.save(file, 'WEBP', quality=80, method=0)
  return file.getvalue()


def _with_scores(
  one: Scored, found: Mapping[str, Feedback], expression: Expression
) -> Scored:
  scores = {
    full_name(model, name): value
    for model, feedback in found.items()
    for name, value in feedback.scores.items()
  }
  error, value = '', expression.value(scores)
  if not all(map(math.isfinite, scores.values())):
    error = 'its scores are not finite'
  elif not math.isfinite(value):
    error = f'its value is {value:g}; make the weights smaller'
  if error:
    return one._replace(candidate=one.candidate._replace(error=error))
  return one._replace(
    candidate=one.candidate._replace(scores=scores, value=value),
    truncated=tuple(name for name, feedback in found.items() if feedback.truncated),
  )
