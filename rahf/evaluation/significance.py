"""Compares runs, with confidence intervals for the differences.

Every run is compared with the first, metric by metric, on the same samples and the same
random draws of them (`metrics/bootstrap.py`).
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from rahf.errors import InputError
from rahf.evaluation import samples as samples_lib
from rahf.evaluation.samples import EvaluatedExample
from rahf.metrics import bootstrap
from rahf.metrics.bootstrap import Difference, Resampled

BETTER, WORSE = '▲', '▼'
# With fewer draws, the ends of an interval are mostly chance.
FEWEST_DRAWS = 100


class Run(NamedTuple):
  """An evaluation of one checkpoint on one split.

  Attributes:
    threshold: of constrained decoding; None without it.
  """

  name: str
  samples: list[EvaluatedExample]
  threshold: float | None


class Comparison(NamedTuple):
  """Every metric of every run, over the same draws.

  Attributes:
    size: number of samples.
    results: by run, then by metric.
    thresholds: of constrained decoding, by run.
    undefined: by run, then by metric, the number of maps for which the run leaves the
      metric undefined. The means of all runs leave these maps out.
  """

  size: int
  results: Mapping[str, Mapping[str, Resampled]]
  thresholds: Mapping[str, float | None]
  undefined: Mapping[str, Mapping[str, float]]

  @property
  def first(self) -> str:
    return next(iter(self.results))

  def difference(self, run: str, metric: str) -> Difference:
    """Returns a run's value of a metric minus that of the first run."""
    return bootstrap.difference(
      self.results[self.first][metric], self.results[run][metric]
    )

  def mark(self, run: str, metric: str) -> str:
    """Returns BETTER or WORSE if a run differs significantly from the first, or ''."""
    if run == self.first:
      return ''
    return mark(metric, self.results[self.first][metric], self.results[run][metric])


def mark(metric: str, first: Resampled, other: Resampled) -> str:
  """Returns BETTER or WORSE if a metric differs significantly from the first, or ''."""
  found = bootstrap.difference(first, other)
  if not found.significant:
    return ''
  return BETTER if (found.value > 0) == higher_is_better(metric) else WORSE


def compare(
  runs: Sequence[Run], *, draws: int = bootstrap.DRAWS, seed: int = 0
) -> Comparison:
  """Resamples every metric of every run.

  Raises:
    InputError: two runs have the same name or different annotated samples; or there
      are too few draws.
  """
  names = [run.name for run in runs]
  if len(set(names)) < len(names):
    raise InputError(f'runs need different names, not {", ".join(names)}')
  if draws < FEWEST_DRAWS:
    raise InputError(f'{draws} draws are too few; take {FEWEST_DRAWS} or more')
  for run in runs:
    check_same_samples(runs[0], run)
  aligned = in_one_order(runs)
  undefined = dict(zip(names, map(samples_lib.undefined, aligned), strict=True))
  functions = {
    run.name: samples_lib.statistics(samples, run.threshold)[0]
    for run, samples in zip(runs, defined_in_all(aligned), strict=True)
  }
  metrics = list(dict.fromkeys(itertools.chain(*functions.values())))
  results: dict[str, dict[str, Resampled]] = {name: {} for name in names}
  work = list(itertools.product(names, metrics))
  for name, metric in tqdm(work, 'resample', unit='metric', leave=False, disable=None):
    # A model may lack a metric, such as those of constrained decoding.
    function = functions[name].get(
      metric, lambda weights: np.full(len(weights), math.nan)
    )
    results[name][metric] = bootstrap.resample(
      function, len(aligned[0]), draws=draws, seed=seed
    )
  thresholds = {run.name: run.threshold for run in runs}
  return Comparison(len(aligned[0]), results, thresholds, undefined)


def in_one_order(runs: Sequence[Run]) -> list[list[EvaluatedExample]]:
  """Returns each run's samples in the order of the first run.

  Args:
    runs: with the same samples.
  """
  by_uid = [{sample.uid: sample for sample in run.samples} for run in runs]
  return [[samples[one.uid] for one in runs[0].samples] for samples in by_uid]


def defined_in_all(
  runs: Sequence[Sequence[EvaluatedExample]],
) -> list[list[EvaluatedExample]]:
  """Returns the samples of all runs without values that are undefined in any run.

  Otherwise a run that predicts constant maps for the hard images, which leaves their
  correlations undefined, would be measured on the easy images only.
  """
  kept: list[list[EvaluatedExample]] = [[] for _ in runs]
  for same in zip(*runs, strict=True):
    undefined = {
      (name, metric)
      for sample in same
      for name, values in sample.maps.items()
      for metric, value in values.items()
      if math.isnan(value)
    }
    for samples, sample in zip(kept, same, strict=True):
      maps = {
        name: {
          metric: math.nan if (name, metric) in undefined else value
          for metric, value in values.items()
        }
        for name, values in sample.maps.items()
      }
      samples.append(sample._replace(maps=maps))
  return kept


def check_same_samples(first: Run, other: Run) -> None:
  """Raises InputError unless both runs have the same annotated samples."""
  one, two = ({s.uid: s for s in run.samples} for run in (first, other))
  if differing := sorted(one.keys() ^ two.keys()):
    raise InputError(
      f'{first.name} has {len(one)} samples and {other.name} {len(two)}, but '
      f'{len(differing)} of them are in one run only, such as {differing[0]}; evaluate '
      'both on the same split of the same data'
    )
  # Without predicted words, a run's samples have no annotated words either.
  have_words = all(any(s.truth for s in run.values()) for run in (one, two))
  for uid, sample in one.items():
    same = not have_words or sample.truth == two[uid].truth
    if not same or not np.array_equal(
      sample.annotated, two[uid].annotated, equal_nan=True
    ):
      raise InputError(
        f'{first.name} and {other.name} have different annotations of {uid}; evaluate '
        'both on the same version of the data'
      )


def higher_is_better(metric: str) -> bool:
  return metric.rsplit('/', 1)[-1] not in ('mse', 'mse_empty', 'kld')
