"""Scores one prediction against its annotation, and a constant predictor.

Axis letters: H W map size.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from rahf.data import schema
from rahf.data.images import codec
from rahf.data.storage.records import RecordSplit
from rahf.errors import InputError
from rahf.evaluation import samples
from rahf.evaluation.samples import EvaluatedExample
from rahf.metrics.saliency import MapMetrics, resize_map

_Item = TypeVar('_Item')


class ExampleLabels(NamedTuple):
  """Labels of one example, annotated or predicted, on the host.

  Attributes:
    maps: in the order of schema.MAPS, values in [0, 1]; None where there is none.
    scores: in the order of schema.SCORES, in [0, 1]; NaN where not annotated, None
      where not predicted.
    keyword_labels: for each word, 1 aligned, 0 misaligned; None if there are none.
    unplaced: decoded marks that do not follow a word of the prompt.
    p_misaligned: for each word, from constrained decoding; None without it.
    calibrated: whether scores are in [0, 1] as people's are; cosines are not.
  """

  maps: Sequence[Float[np.ndarray, 'H W'] | None]
  scores: Sequence[float | None]
  keyword_labels: Sequence[int] | None
  unplaced: int = 0
  p_misaligned: Sequence[float] | None = None
  calibrated: bool = True


def score(record: schema.Record, prediction: ExampleLabels) -> EvaluatedExample:
  """Compares a prediction with its annotation, maps at the annotation's own size.

  Raises:
    InputError: a predicted value is NaN or infinite, which a mean would hide.
  """
  _check(record, prediction)
  maps = {}
  encoded = _encoded_maps(record)
  for name, predicted, data in zip(schema.MAPS, prediction.maps, encoded, strict=True):
    if data and predicted is not None:
      maps[name] = MapMetrics.of(predicted, codec.decode_map(data)).values()
  marked, p_misaligned = prediction.keyword_labels, prediction.p_misaligned
  return EvaluatedExample(
    record.uid,
    predicted=tuple(math.nan if s is None else float(s) for s in prediction.scores),
    annotated=tuple(map(float, record.scores)),
    maps=maps,
    truth=() if marked is None else tuple(record.keyword_labels),
    marked=() if marked is None else tuple(marked),
    unplaced=prediction.unplaced,
    p_misaligned=() if p_misaligned is None else tuple(map(float, p_misaligned)),
    calibrated=prediction.calibrated,
  )


DIVERGED = (
  'the parameters are not finite, or too large; train again with a lower '
  'config.optimizer.learning_rate, or take other weights'
)


def _check(record: schema.Record, prediction: ExampleLabels) -> None:
  parts = (
    *(('maps', heatmap) for heatmap in prediction.maps),
    ('scores', [score for score in prediction.scores if score is not None]),
    ('words', prediction.p_misaligned),
  )
  for name, values in parts:
    # A sum is finite only if all values are, and needs no memory.
    if values is not None and not np.isfinite(np.sum(values, dtype=np.float64)):
      raise InputError(
        f"the model's prediction for the {name} of {record.uid} is NaN or infinite: "
        + DIVERGED
      )


def constant_metrics(train: RecordSplit, split: RecordSplit) -> dict[str, float]:
  """Evaluates a predictor that returns the training means for every example.

  Its maps are the pixelwise means of the training maps, its scores the mean scores; all
  words are aligned, as most words are.
  """
  means = training_means(train)
  return samples.metrics(
    [
      score(record, means._replace(keyword_labels=(1,) * len(record.tokens)))
      for record in read_through(split, 'constant predictor')
    ]
  )


def annotated_labels(record: schema.Record) -> ExampleLabels:
  """Returns the labels of a record, its maps decoded."""
  return ExampleLabels(
    [codec.decode_map(data) if data else None for data in _encoded_maps(record)],
    record.scores,
    record.keyword_labels or None,
  )


def _encoded_maps(record: schema.Record) -> tuple[bytes, bytes]:
  """Returns the maps in the order of schema.MAPS; empty where not annotated."""
  return record.implausibility_map, record.misalignment_map


def training_means(train: RecordSplit) -> ExampleLabels:
  """Returns the means of maps and scores over the annotated training examples.

  Maps are averaged at the size of the first one; the others are resized to it. Maps and
  scores without any annotation are 0.
  """
  totals: dict[str, np.ndarray] = {}
  counts = dict.fromkeys(schema.MAPS, 0)
  scores = []
  # Skips damaged records, as training may have done.
  for _, record in _with_bar(train.undamaged(), 'training means', len(train)):
    try:
      maps = annotated_labels(record).maps
    except codec.ImageError:
      continue
    scores.append(record.scores)
    for name, values in zip(schema.MAPS, maps, strict=True):
      if values is None:
        continue
      if totals:
        values = resize_map(values, *next(iter(totals.values())).shape)
      totals[name] = totals.get(name, 0.0) + values
      counts[name] += 1
  size = next(iter(totals.values())).shape if totals else (1, 1)
  maps = [totals.get(name, np.zeros(size)) / max(counts[name], 1) for name in counts]
  annotated = np.maximum(np.sum(~np.isnan(scores), axis=0), 1)
  return ExampleLabels(np.stack(maps), np.nansum(scores, axis=0) / annotated, ())


def read_through(split: RecordSplit, what: str) -> Iterable[schema.Record]:
  """Yields every record, with a progress bar."""
  return _with_bar(split, what, len(split))


def _with_bar(items: Iterable[_Item], what: str, total: int) -> Iterable[_Item]:
  return tqdm(items, what, total, unit='example', leave=False, disable=None)
