"""Metrics of any selection of samples, and the file of the samples."""

import math

import numpy as np
import pytest
from etils import epath

from rahf.data import schema
from rahf.errors import InputError
from rahf.evaluation import samples
from rahf.evaluation.paper_tables import KEYWORD_METRICS
from rahf.evaluation.samples import EvaluatedExample
from rahf.metrics import bootstrap
from rahf.metrics.correlation import kendall, plcc
from rahf.metrics.keywords import KeywordMetrics
from rahf.metrics.saliency import MapMetrics

RNG = np.random.default_rng(0)
NAN = math.nan
WORDS = 5


def make_sample(number: int) -> EvaluatedExample:
  """Every third without misalignment map and words, every fourth without a score."""
  annotated = RNG.random(4)
  if number % 4 == 0:
    annotated[2] = NAN
  maps = {}
  for name in schema.MAPS[: 1 if number % 3 == 0 else 2]:
    # The second has no region, the fourth is answered with a constant.
    truth = np.zeros((4, 4)) if number == 1 else np.eye(4)
    predicted = np.ones((4, 4)) if number == 3 else RNG.random((4, 4))
    maps[name] = MapMetrics.of(predicted, truth).values()
  labels = () if number % 3 == 0 else tuple(RNG.integers(0, 2, WORDS).tolist())
  return EvaluatedExample(
    uid=f'sample-{number}',
    predicted=tuple(RNG.random(4).tolist()),
    annotated=tuple(annotated.tolist()),
    maps=maps,
    truth=labels,
    marked=tuple(RNG.integers(0, 2, WORDS).tolist()),
    unplaced=number % 2,
    p_misaligned=tuple(RNG.random(WORDS).tolist()),
  )


SAMPLES = [make_sample(number) for number in range(12)]


def test_scores_are_correlated_where_they_are_annotated():
  predicted, annotated = (
    np.array([getattr(s, side)[2] for s in SAMPLES if not math.isnan(s.annotated[2])])
    for side in ('predicted', 'annotated')
  )
  assert len(predicted) == 9
  found = samples.metrics(SAMPLES)
  name = schema.SCORES[2]
  for key, measure in (('plcc', plcc), ('kendall', kendall)):
    expected = pytest.approx(measure(predicted, annotated), rel=1e-12)
    assert found[f'{name}/{key}'] == expected


def test_maps_are_averaged_where_they_are_defined():
  found = samples.metrics(SAMPLES)
  second = [s.maps['misalignment'] for s in SAMPLES if 'misalignment' in s.maps]
  assert len(second) == 8
  assert found['misalignment/mse'] == pytest.approx(np.mean([v['mse'] for v in second]))
  assert found['misalignment/mse_empty'] == SAMPLES[1].maps['misalignment']['mse']
  assert found['misalignment/cc'] == pytest.approx(
    np.mean([v['cc'] for v in second if not math.isnan(v['cc'])])
  )
  # A constant correlates with nothing; an empty truth is not asked.
  assert found['implausibility/cc/undefined'] == 1
  assert found['implausibility/nss/undefined'] == 1
  assert 'implausibility/kld/undefined' not in found
  assert 'misalignment/cc/undefined' not in found


def test_keywords_are_pooled():
  counts = KeywordMetrics()
  constrained = KeywordMetrics()
  for s in SAMPLES:
    if s.truth:
      counts += KeywordMetrics.of(s.truth, s.marked, unplaced=s.unplaced)
      constrained += KeywordMetrics.of(s.truth, [p <= 0.3 for p in s.p_misaligned])
  found = samples.metrics(SAMPLES, 0.3)
  for name in KEYWORD_METRICS:
    assert found[f'keywords/{name}'] == pytest.approx(getattr(counts, name))
    expected = pytest.approx(getattr(constrained, name))
    assert found[f'keywords_constrained/{name}'] == expected
  assert found['keywords_constrained/threshold'] == 0.3
  best = samples.metrics(SAMPLES)
  assert best['keywords_constrained/f1'] >= found['keywords_constrained/f1']


def test_a_selection_of_samples_has_its_own_metrics():
  chosen = np.array([1, 2, 5, 5, 7, 10])
  weights = np.bincount(chosen, minlength=len(SAMPLES))[None]
  functions, _ = samples.statistics(SAMPLES, 0.5)
  expected = samples.metrics([SAMPLES[i] for i in chosen], 0.5)
  assert functions.keys() <= expected.keys()
  for name, function in functions.items():
    (value,) = function(weights)
    assert value == pytest.approx(expected[name], nan_ok=True), name


def test_every_metric_has_an_interval():
  functions, _ = samples.statistics(SAMPLES, 0.5)
  for name, function in functions.items():
    found = bootstrap.resample(function, len(SAMPLES), draws=20).interval
    assert found.low <= found.high, name


def test_without_annotations_nothing_is_defined():
  bare = EvaluatedExample('a', (0.5,) * 4, (NAN,) * 4, {}, (), (1, 1))
  found = samples.metrics([bare, bare])
  assert np.isnan(list(found.values())).all()
  assert np.isnan(list(samples.metrics([]).values())).all()


def test_samples_are_read_as_written(tmp_path):
  path = epath.Path(tmp_path / 'dev-4.samples.jsonl')
  samples.write(path, SAMPLES)
  found = samples.read(path)
  assert str(found) == str(SAMPLES)
  text = path.read_text()
  assert 'NaN' not in text
  path.write_text(text.replace('"uid"', '"name"'))
  with pytest.raises(InputError, match=r'dev-4\.samples\.jsonl:1 is not a sample'):
    samples.read(path)
  with pytest.raises(InputError, match='does not exist; evaluate first'):
    samples.read(path.parent / 'other.samples.jsonl')
