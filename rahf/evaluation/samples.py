"""Evaluated examples, their file, and all metrics computed from them.

Each metric is defined once, for any selection of examples: all of them for the tables,
random draws for intervals and comparisons (`metrics/bootstrap.py`).
"""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float

from rahf.data import schema
from rahf.errors import InputError
from rahf.evaluation.paper_tables import KEYWORD_METRICS, MAP_METRICS
from rahf.fileio import atomic_write, strict_json
from rahf.metrics import bootstrap
from rahf.metrics.bootstrap import Interval, Statistic
from rahf.metrics.keywords import KeywordMetrics, best_threshold, sweep
from rahf.metrics.weighted_correlation import kendall, plcc, srcc

# The name under which metrics have the threshold of constrained decoding.
THRESHOLD = 'keywords_constrained/threshold'
CORRELATIONS = {'plcc': plcc, 'srcc': srcc, 'kendall': kendall}


class EvaluatedExample(NamedTuple):
  """Scores, map metrics and words of one example; NaN if missing or undefined.

  Attributes:
    predicted, annotated: the scores, in the order of schema.SCORES; NaN where a model
      does not predict a score, or it is not annotated.
    maps: the values of MAP_METRICS for each map of schema.MAPS that is annotated and
      predicted.
    truth: for each word, 1 aligned, 0 misaligned; () if words are not annotated or not
      predicted.
    marked: the decoded labels, likewise.
    unplaced: decoded marks that do not follow a word of the prompt.
    p_misaligned: for each word; () without constrained decoding.
    calibrated: whether predicted and annotated scores have the same scale.
  """

  uid: str
  predicted: tuple[float, ...]
  annotated: tuple[float, ...]
  maps: dict[str, dict[str, float]]
  truth: tuple[int, ...]
  marked: tuple[int, ...]
  unplaced: int = 0
  p_misaligned: tuple[float, ...] = ()
  calibrated: bool = True


class Evaluation(NamedTuple):
  """All metrics of a split by name, and the examples that they are computed from."""

  metrics: dict[str, float]
  samples: list[EvaluatedExample]


def score_error(sample: EvaluatedExample) -> float:
  """Returns the mean of |predicted - annotated| over the annotated scores, or NaN.

  Scores of another scale have no error.
  """
  if not sample.calibrated:
    return math.nan
  errors = np.abs(np.subtract(sample.predicted, sample.annotated))
  return float(np.nanmean(errors)) if np.isfinite(errors).any() else math.nan


def keyword_f1(sample: EvaluatedExample) -> float:
  """Returns the F1 of the decoded marks, NaN if words are not annotated."""
  if not sample.truth:
    return math.nan
  found = KeywordMetrics.of(sample.truth, sample.marked, unplaced=sample.unplaced)
  return found.f1_total


def statistics(
  samples: Sequence[EvaluatedExample], threshold: float | None = None
) -> tuple[dict[str, Statistic], float | None]:
  """Returns every metric by name, as a function of how often each sample counts.

  Args:
    threshold: constrained decoding marks a word with a higher probability; None takes
      the best threshold on these samples.

  Returns:
    The functions, and the threshold; None without constrained decoding.
  """
  found = _scores(samples) | _maps(samples)
  freely = [
    KeywordMetrics.of(s.truth, s.marked, unplaced=s.unplaced)
    if s.truth
    else KeywordMetrics()
    for s in samples
  ]
  found |= _keywords('keywords', freely)
  judged = [s for s in samples if s.truth and s.p_misaligned]
  if not judged:
    return found, None
  if threshold is None:
    threshold = best_threshold(*_joined(judged))
  constrained = [
    KeywordMetrics.of(s.truth, [int(p <= threshold) for p in s.p_misaligned])
    if s.truth and s.p_misaligned
    else KeywordMetrics()
    for s in samples
  ]
  found |= _keywords('keywords_constrained', constrained)
  found['keywords_constrained/average_precision'] = functools.partial(
    _average_precision, samples
  )
  return found, threshold


def metrics(
  samples: Sequence[EvaluatedExample], threshold: float | None = None
) -> dict[str, float]:
  """Returns the value of every metric by name, NaN if it is undefined.

  If a map metric is undefined for some samples, such as a correlation with a constant
  map, `…/undefined` counts those samples.
  """
  functions, threshold = statistics(samples, threshold)
  values = {
    name: bootstrap.evaluate(function, len(samples))
    for name, function in functions.items()
  }
  if threshold is not None:
    values[THRESHOLD] = threshold
  return values | undefined(samples)


def intervals(
  samples: Sequence[EvaluatedExample],
  threshold: float | None = None,
) -> dict[str, Interval]:
  """Returns every metric by name with its interval, bootstrapped over the samples.

  Args:
    threshold: as in `statistics`.
  """
  functions, _ = statistics(samples, threshold)
  found = {}
  for name, function in functions.items():
    found[name] = bootstrap.resample(function, len(samples)).interval
  return found


def undefined(samples: Sequence[EvaluatedExample]) -> dict[str, float]:
  """Counts for each metric the maps that are annotated, not empty, and undefined.

  Returns:
    Counts above 0, by names such as `implausibility/cc/undefined`.
  """
  counts: dict[str, float] = {}
  for sample in samples:
    for name, values in sample.maps.items():
      if not math.isnan(values['mse_empty']):
        continue
      for key in set(MAP_METRICS) - {'mse_empty'}:
        if math.isnan(values[key]):
          place = f'{name}/{key}/undefined'
          counts[place] = counts.get(place, 0) + 1
  return dict(sorted(counts.items()))


def write(path: epath.Path, samples: Iterable[EvaluatedExample]) -> None:
  """Writes one JSON object per line, with null for NaN."""
  rows = (_map_leaves(sample._asdict(), _to_json) for sample in samples)
  lines = (json.dumps(row, allow_nan=False) + '\n' for row in rows)
  atomic_write.write(path, ''.join(lines))


def read(path: epath.Path) -> list[EvaluatedExample]:
  """Reads the file that `write` wrote.

  Raises:
    InputError: the file is missing, a line is not a sample, or a prediction is not
      finite.
  """
  if not path.exists():
    raise InputError(f'{path} does not exist; evaluate first, with --mode=eval')
  samples = []
  for number, line in enumerate(path.read_bytes().splitlines(), start=1):
    try:
      fields = _map_leaves(strict_json.parse(line), _from_json)
      samples.append(EvaluatedExample(**fields))
      _check(samples[-1])
      if np.any(np.isnan(samples[-1].predicted) != np.isnan(samples[0].predicted)):
        raise ValueError('a score is predicted for some examples, but null for others')
    except (ValueError, TypeError, AttributeError) as error:
      raise InputError(f'{path}:{number} is not a sample: {error!s:.300}') from error
  return samples


def _scores(samples: Sequence[EvaluatedExample]) -> dict[str, Statistic]:
  shape = len(samples), len(schema.SCORES)
  predicted, annotated = (
    np.reshape(np.array([getattr(s, side) for s in samples], np.float64), shape)
    for side in ('predicted', 'annotated')
  )
  return {
    f'{name}/{key}': functools.partial(
      _correlation, measure, predicted[:, i], annotated[:, i]
    )
    for i, name in enumerate(schema.SCORES)
    for key, measure in CORRELATIONS.items()
  }


def _maps(samples: Sequence[EvaluatedExample]) -> dict[str, Statistic]:
  return {
    f'{name}/{key}': bootstrap.mean(
      np.array([s.maps.get(name, {}).get(key, math.nan) for s in samples])
    )
    for name in schema.MAPS
    for key in MAP_METRICS
  }


def _keywords(prefix: str, each: Sequence[KeywordMetrics]) -> dict[str, Statistic]:
  fields = len(dataclasses.fields(KeywordMetrics))
  counts = np.reshape([dataclasses.astuple(one) for one in each], (-1, fields))
  return {
    f'{prefix}/{key}': functools.partial(_pooled, counts, key)
    for key in KEYWORD_METRICS
  }


def _correlation(
  measure: Callable,
  predicted: Float[np.ndarray, 'N'],
  annotated: Float[np.ndarray, 'N'],
  weights: Float[np.ndarray, 'D N'],
) -> Float[np.ndarray, 'D']:
  known = ~np.isnan(predicted) & ~np.isnan(annotated)
  return measure(predicted[known], annotated[known], weights[:, known])


def _pooled(
  counts: Float[np.ndarray, 'N F'], key: str, weights: Float[np.ndarray, 'D N']
) -> Float[np.ndarray, 'D']:
  return np.array([getattr(KeywordMetrics(*row), key) for row in weights @ counts])


def _average_precision(
  samples: Sequence[EvaluatedExample], weights: Float[np.ndarray, 'D N']
) -> Float[np.ndarray, 'D']:
  judged = [i for i, s in enumerate(samples) if s.truth and s.p_misaligned]
  labels, probabilities = _joined([samples[i] for i in judged])
  words = np.repeat(judged, [len(samples[i].truth) for i in judged])
  repeated = (
    np.repeat(np.arange(len(words)), row[words].astype(int)) for row in weights
  )
  return np.array(
    [
      sweep(labels[rows], probabilities[rows]).average_precision
      if len(rows)
      else math.nan
      for rows in repeated
    ]
  )


def _joined(judged: Sequence[EvaluatedExample]) -> tuple[np.ndarray, np.ndarray]:
  labels = np.concatenate([s.truth for s in judged])
  return labels, np.concatenate([s.p_misaligned for s in judged])


def _map_leaves(value, function: Callable):
  """Applies a function to everything that is neither a dict nor a list."""
  if isinstance(value, dict):
    return {key: _map_leaves(item, function) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return tuple(_map_leaves(item, function) for item in value)
  return function(value)


def _check(sample: EvaluatedExample) -> None:
  """Raises ValueError or TypeError unless metrics can be computed from a sample."""
  for name in ('predicted', 'annotated'):
    if (count := len(getattr(sample, name))) != len(schema.SCORES):
      raise ValueError(f'{name} has {count} scores, not {len(schema.SCORES)}')
  if not all(map(math.isfinite, sample.p_misaligned)):
    raise ValueError('a predicted probability is null')
  if sample.truth:
    KeywordMetrics.of(sample.truth, sample.marked, unplaced=sample.unplaced)
    if len(sample.p_misaligned) not in (0, len(sample.truth)):
      raise ValueError('p_misaligned and truth have different lengths')
  for values in sample.maps.values():
    if missing := set(MAP_METRICS) - values.keys():
      raise ValueError(f'a map has no {min(missing)}')


def _to_json(value):
  return None if isinstance(value, float) and math.isnan(value) else value


def _from_json(value):
  return math.nan if value is None else value
