"""What a RAHF says about the images of a project, for people to start from or compare.

A prediction has the fields of an answer (`rich`), with scores as fractions of steps,
and `uncertainty`, how undecided the model is, from 0 to 1.

Axis letters: H height, W width.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa
from jaxtyping import Float
from tqdm import tqdm

from rahf.annotation import rich
from rahf.annotation.project import Project
from rahf.annotation.tables import ANSWERS, DONE, ITEMS, TASK
from rahf.data import label_words, schema
from rahf.data.labels.consolidate import DISC_RADIUS
from rahf.errors import InputError

if TYPE_CHECKING:
  from rahf.inference.feedback import Feedback

# Map values from which on a place is marked, and the most places.
_MARKED, _MOST = 0.3, 20
# Items without answers come by uncertainty, after all with a large disagreement.
_UNCERTAINTY = 0.5


def predict(project: Project, model: Any, batch_size: int) -> int:
  """Stores predictions for all images; returns their number.

  Args:
    model: a loaded RAHF.
    batch_size: images to read and score at once.

  Raises:
    InputError: the model does not make maps and words, or an image has vanished.
  """
  if not model.outputs.maps or model.outputs.keywords is None:
    raise InputError('the model makes no maps and words; give a RAHF')
  with project.store.read() as connection:
    items = connection.execute(sa.select(ITEMS).order_by(ITEMS.c.position)).all()
  for start in tqdm(range(0, len(items), batch_size), 'Predicting', disable=None):
    batch = items[start : start + batch_size]
    paths = [project.images / item.images[0]['file'] for item in batch]
    found = model.score(paths, [item.prompt for item in batch])
    with project.store.write(lock=True) as connection:
      for item, feedback in zip(batch, found, strict=True):
        prediction = from_feedback(feedback)
        connection.execute(
          sa.update(ITEMS).where(ITEMS.c.id == item.id).values(prediction=prediction)
        )
        fresh = connection.execute(sa.select(ITEMS).where(ITEMS.c.id == item.id)).one()
        rank(connection, fresh)
  return len(items)


def from_feedback(feedback: 'Feedback') -> dict[str, Any]:
  """Returns a RAHF's feedback as a prediction."""
  probabilities = _of_labels(feedback)
  points = {f'{name}_points': peaks(feedback.heatmaps[name]) for name in schema.MAPS}
  # 1 for a word that might be either, 0 for certain ones; cut words say nothing.
  undecided = [4 * p * (1 - p) for p in probabilities if p == p]
  return {
    **points,
    rich.WORDS: [n for n, p in enumerate(probabilities) if p > feedback.threshold],
    'scores': {name: 1 + 4 * feedback.scores[name] for name in schema.SCORES},
    'uncertainty': float(np.mean(undecided)) if undecided else 0.0,
  }


def as_draft(prediction: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a prediction as the draft of an answer.

  It does not say that there is nothing to mark: people have to look.
  """
  scores = {
    name: min(max(round(score), 1), 5) for name, score in prediction['scores'].items()
  }
  lists = {name: prediction[name] for name in rich.LISTS}
  return {**lists, 'scores': scores, 'nothing': []}


def rank(connection: sa.Connection, item: Any) -> None:
  """Sets an item's priority: how much its answers and the model disagree, 0 to 1.

  Without an answer it is half of the model's uncertainty.
  """
  values = connection.scalars(
    sa.select(ANSWERS.c.value).where(
      ANSWERS.c.item == item.id,
      ANSWERS.c.status == DONE,
      ANSWERS.c.purpose == TASK,
    )
  ).all()
  priority = _UNCERTAINTY * item.prediction['uncertainty']
  if values:
    priority = disagreement(values, item.prediction)
  connection.execute(
    sa.update(ITEMS).where(ITEMS.c.id == item.id).values(priority=priority)
  )


def disagreement(
  values: list[Mapping[str, Any]], prediction: Mapping[str, Any]
) -> float:
  """Returns the mean difference of people's mean scores and the model's, 0 to 1."""
  apart = [
    abs(np.mean([value['scores'][name] for value in values]) - score) / 4
    for name, score in prediction['scores'].items()
  ]
  return float(np.mean(apart))


def peaks(heat: Float[np.ndarray, 'H W']) -> list[list[float]]:
  """Returns the highest places of a map, as [x, y] fractions, the highest first.

  Each stands for its disc; places closer than its diameter to a higher one are left
  out.
  """
  height, width = heat.shape
  left = np.array(heat, np.float32)
  rows, columns = np.ogrid[:height, :width]
  found = []
  while len(found) < _MOST:
    row, column = np.unravel_index(np.argmax(left), left.shape)
    if left[row, column] < _MARKED:
      break
    found.append([(float(column) + 0.5) / width, (float(row) + 0.5) / height])
    distance = np.hypot(rows - row, columns - column)
    left[distance <= 2 * DISC_RADIUS * height] = 0
  return found


def _of_labels(feedback: 'Feedback') -> list[float]:
  """Returns for each label token the highest probability of the words in it."""
  spans = label_words.word_spans(feedback.prompt)
  words = [(span, p) for span, (_, p) in zip(spans, feedback.keywords, strict=True)]
  return [
    max((p for (a, b), p in words if a < end and start < b and p == p), default=np.nan)
    for start, end in label_words.label_spans(feedback.prompt)
  ]
