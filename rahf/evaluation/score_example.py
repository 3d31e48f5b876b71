"""Metrics of a prediction for one example, and of a constant predictor.

Axis letters: H W map size.
"""

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from rahf.data import schema
from rahf.data.images import codec
from rahf.data.storage.records import RecordSplit
from rahf.errors import InputError
from rahf.evaluation import samples
from rahf.evaluation.samples import Sample
from rahf.metrics.saliency import MapMetrics, resize_map

_Item = TypeVar('_Item')


class Prediction(NamedTuple):
  """What is predicted for one example.

  Attributes:
    maps, scores: in the order of schema.MAPS and schema.SCORES.
    keyword_labels: per word, 1 aligned, 0 misaligned.
    unplaced: marks that follow no word of the prompt.
    p_misaligned: per word, from constrained decoding; None without it.
  """

  maps: Float[np.ndarray, '2 H W']
  scores: Float[np.ndarray, '4']
  keyword_labels: tuple[int, ...]
  unplaced: int = 0
  p_misaligned: Float[np.ndarray, 'words'] | None = None


def score(record: schema.Record, prediction: Prediction) -> Sample:
  """Returns the metrics of one example, maps at the annotation's own size.

  Raises:
    InputError: something predicted is NaN or infinite, which a mean would hide.
  """
  _check(record, prediction)
  maps = {}
  for name, predicted_map in zip(schema.MAPS, prediction.maps, strict=True):
    if data := getattr(record, f'{name}_map'):
      maps[name] = MapMetrics.of(predicted_map, codec.decode_map(data)).values()
  p_misaligned = prediction.p_misaligned
  return Sample(
    record.uid,
    predicted=tuple(map(float, prediction.scores)),
    annotated=tuple(map(float, record.scores)),
    maps=maps,
    truth=tuple(record.keyword_labels),
    marked=tuple(prediction.keyword_labels),
    unplaced=prediction.unplaced,
    p_misaligned=() if p_misaligned is None else tuple(map(float, p_misaligned)),
  )


def _check(record: schema.Record, prediction: Prediction) -> None:
  parts = prediction.maps, prediction.scores, prediction.p_misaligned
  for name, values in zip(('maps', 'scores', 'words'), parts, strict=True):
    # A sum is finite only if all values are, and takes no memory.
    if values is not None and not np.isfinite(np.sum(values, dtype=np.float64)):
      raise InputError(
        f'what the model predicts for the {name} of {record.uid} is NaN or infinite: '
        'its parameters have diverged; train again with a lower '
        'config.optimizer.learning_rate, or evaluate another run'
      )


def constant_metrics(train: RecordSplit, split: RecordSplit) -> dict[str, float]:
  """Evaluates the predictor that always answers with the training means.

  Its maps are the pixelwise means of the training maps, its scores the mean scores;
  its keywords are all aligned, as most words are.
  """
  means = training_means(train)
  return samples.metrics(
    [
      score(record, means._replace(keyword_labels=(1,) * len(record.tokens)))
      for record in read_through(split, 'constant predictor')
    ]
  )


def decoded_maps(record: schema.Record) -> dict[str, Float[np.ndarray, 'h w'] | None]:
  """Returns the annotated maps by name, None where there is none."""
  encoded = {name: getattr(record, f'{name}_map') for name in schema.MAPS}
  return {name: codec.decode_map(d) if d else None for name, d in encoded.items()}


def training_means(train: RecordSplit) -> Prediction:
  """Returns the means of maps and scores over the annotated training examples.

  Maps are averaged at the size of the first; others are resized to it. What no
  example is annotated with is 0.
  """
  totals: dict[str, np.ndarray] = {}
  counts = dict.fromkeys(schema.MAPS, 0)
  scores = []
  # Training may have passed over the damaged ones.
  for _, record in _with_bar(train.undamaged(), 'training means', len(train)):
    try:
      maps = decoded_maps(record)
    except codec.ImageError:
      continue
    scores.append(record.scores)
    for name, values in maps.items():
      if values is None:
        continue
      if totals:
        values = resize_map(values, *next(iter(totals.values())).shape)
      totals[name] = totals.get(name, 0.0) + values
      counts[name] += 1
  size = next(iter(totals.values())).shape if totals else (1, 1)
  maps = [totals.get(name, np.zeros(size)) / max(counts[name], 1) for name in counts]
  annotated = np.maximum(np.sum(~np.isnan(scores), axis=0), 1)
  return Prediction(np.stack(maps), np.nansum(scores, axis=0) / annotated, ())


def read_through(split: RecordSplit, what: str) -> Iterable[schema.Record]:
  """Returns every record, with a progress bar."""
  return _with_bar(split, what, len(split))


def _with_bar(items: Iterable[_Item], what: str, total: int) -> Iterable[_Item]:
  return tqdm(items, what, total, unit='example', leave=False, disable=None)
