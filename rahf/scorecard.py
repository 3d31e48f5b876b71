"""Metrics of predictions, example by example, and a predictor to compare with.

Axis letters: H W map size.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from rahf.data import images, schema
from rahf.data.records import RecordSplit
from rahf.metrics.correlation import plcc, srcc
from rahf.metrics.keywords import KeywordMetrics, best_threshold
from rahf.metrics.saliency import MapMetrics, resize_map
from rahf.panels import Labels, review_panel


class Prediction(NamedTuple):
  """What is predicted for one example.

  Attributes:
    maps, scores: in the order of schema.MAPS and schema.SCORES.
    keyword_labels: per word, 1 aligned, 0 misaligned.
    unplaced: marks that stand behind no word of the prompt.
    p_misaligned: per word, from constrained decoding; None without it.
  """

  maps: Float[np.ndarray, '2 H W']
  scores: Float[np.ndarray, '4']
  keyword_labels: tuple[int, ...]
  unplaced: int = 0
  p_misaligned: Float[np.ndarray, 'words'] | None = None


@dataclasses.dataclass
class Scorecard:
  """Adds up the metrics of examples, one by one."""

  maps: dict[str, MapMetrics] = dataclasses.field(
    default_factory=lambda: {name: MapMetrics() for name in schema.MAPS}
  )
  predicted: list[np.ndarray] = dataclasses.field(default_factory=list)
  annotated: list[np.ndarray] = dataclasses.field(default_factory=list)
  keywords: KeywordMetrics = KeywordMetrics()
  judged: list[tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)

  def add(self, record: schema.Record, prediction: Prediction) -> None:
    """Compares with the annotation, maps at the annotation's own size."""
    for name, predicted_map in zip(schema.MAPS, prediction.maps, strict=True):
      data = getattr(record, f'{name}_map')
      if data:
        pair = MapMetrics.of(predicted_map, images.decode_map(data))
        self.maps[name] += pair
    self.predicted.append(prediction.scores)
    self.annotated.append(np.asarray(record.scores))
    if record.keyword_labels:
      self.keywords += KeywordMetrics.of(
        record.keyword_labels, prediction.keyword_labels, unplaced=prediction.unplaced
      )
      if prediction.p_misaligned is not None:
        self.judged.append((np.array(record.keyword_labels), prediction.p_misaligned))

  def metrics(self, threshold: float | None = None) -> dict[str, float]:
    """Returns all metrics by name; NaN where nothing defines one.

    Args:
      threshold: constrained decoding marks a word above it; None takes the one that
        is best for these very examples.
    """
    values = {}
    predicted, annotated = np.array(self.predicted), np.array(self.annotated)
    for i, name in enumerate(schema.SCORES):
      mask = ~np.isnan(annotated[:, i])
      values[f'{name}/plcc'] = plcc(predicted[:, i], annotated[:, i], mask)
      values[f'{name}/srcc'] = srcc(predicted[:, i], annotated[:, i], mask)
    for name, metrics in self.maps.items():
      values |= {f'{name}/{k}': v for k, v in metrics.values().items()}
    values |= {f'keywords/{k}': v for k, v in self.keywords.values().items()}
    return values | self._constrained(threshold)

  def _constrained(self, threshold: float | None) -> dict[str, float]:
    if not self.judged:
      return {}
    if threshold is None:
      labels, p = (np.concatenate(arrays) for arrays in zip(*self.judged, strict=True))
      threshold = best_threshold(labels, p)
    marked = KeywordMetrics()
    for labels, p in self.judged:
      marked += KeywordMetrics.of(labels, (p <= threshold).astype(int))
    values = marked.values() | {'threshold': threshold}
    return {f'keywords_constrained/{name}': value for name, value in values.items()}


def draw(record: schema.Record, prediction: Prediction) -> np.ndarray:
  """Returns the picture of one example, annotation beside prediction."""
  maps = {}
  for name in schema.MAPS:
    data = getattr(record, f'{name}_map')
    maps[name] = images.decode_map(data) if data else None
  truth = Labels(
    maps, dict(zip(schema.SCORES, record.scores, strict=True)), record.keyword_labels
  )
  predicted = Labels(
    dict(zip(schema.MAPS, prediction.maps, strict=True)),
    dict(zip(schema.SCORES, prediction.scores, strict=True)),
    prediction.keyword_labels,
  )
  return review_panel(
    images.decode_image(record.image),
    record.prompt,
    truth,
    predicted,
    title=record.uid,
  )


def constant_metrics(
  train: RecordSplit, split: RecordSplit, check: Callable[[], None] = lambda: None
) -> dict[str, float]:
  """Evaluates the predictor that always answers with the training means.

  Its maps are the pixelwise means of the training maps, its scores the mean scores;
  its keywords are all aligned, as most words are.

  Args:
    check: called for every record; may raise, to end this early.
  """
  means = training_means(train, check)
  card = Scorecard()
  for record in _read(split, 'constant predictor', check):
    card.add(record, means._replace(keyword_labels=(1,) * len(record.tokens)))
  return card.metrics()


def training_means(
  train: RecordSplit, check: Callable[[], None] = lambda: None
) -> Prediction:
  """Returns the means of maps and scores over the annotated training examples.

  Maps are averaged at the size of the first; others are resized to it. What no
  example is annotated with is 0.
  """
  totals: dict[str, np.ndarray] = {}
  counts = dict.fromkeys(schema.MAPS, 0)
  scores = []
  for record in _read(train, 'training means', check):
    scores.append(record.scores)
    for name in schema.MAPS:
      data = getattr(record, f'{name}_map')
      if not data:
        continue
      values = images.decode_map(data)
      if totals:
        values = resize_map(values, *next(iter(totals.values())).shape)
      totals[name] = totals.get(name, 0.0) + values
      counts[name] += 1
  size = next(iter(totals.values())).shape if totals else (1, 1)
  maps = [totals.get(name, np.zeros(size)) / max(counts[name], 1) for name in counts]
  annotated = np.maximum(np.sum(~np.isnan(scores), axis=0), 1)
  return Prediction(np.stack(maps), np.nansum(scores, axis=0) / annotated, ())


def _read(
  split: RecordSplit, what: str, check: Callable[[], None]
) -> Iterator[schema.Record]:
  bar = tqdm(split, what, len(split), unit='example', leave=False, disable=None)
  for record in bar:
    check()
    yield record
