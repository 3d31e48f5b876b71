"""Metrics by attribute of the images, such as their category (paper section 3.3)."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from rahf.data.attributes.table import UNKNOWN, Attributes
from rahf.evaluation import samples as samples_lib
from rahf.evaluation.paper_tables import Table
from rahf.evaluation.samples import EvaluatedExample
from rahf.evaluation.significance import Run, defined_in_all, in_one_order, mark
from rahf.metrics import bootstrap
from rahf.metrics.bootstrap import Statistic

# One or two for each output; all metrics of all answers would not be read.
HEADLINES = (
  *('plausibility/srcc', 'alignment/srcc', 'aesthetics/srcc', 'overall/srcc'),
  *('implausibility/cc', 'misalignment/cc', 'keywords/f1'),
)


def groups(attributes: Attributes) -> dict[str, dict[str, Int[np.ndarray, 'n']]]:
  """Returns the rows with each answer, by question; without unknown answers."""
  found = {}
  for name, column in attributes.answers.items():
    answers = np.array(column)
    known = sorted({*column} - {UNKNOWN})
    found[name] = {answer: np.flatnonzero(answers == answer) for answer in known}
  return found


def tables(
  samples: Sequence[EvaluatedExample],
  attributes: Attributes,
  threshold: float | None = None,
) -> list[Table]:
  """Returns a table for each question, with a row of metrics for each answer.

  Args:
    samples: of one run.
    attributes: of the samples, in their order.
    threshold: of constrained decoding, see `samples.statistics`.
  """
  functions, _ = samples_lib.statistics(samples, threshold)

  def value(metric: str, of: Int[np.ndarray, 'n']) -> float:
    return bootstrap.evaluate(_among(functions[metric], of, len(samples)), len(of))

  found = []
  for name, rows in groups(attributes).items():
    cells = [
      [answer, f'{len(of):,}', *(_shown(value(m, of)) for m in HEADLINES)]
      for answer, of in rows.items()
    ]
    found.append(Table(f'By {name}', '', ['', 'images', *HEADLINES], cells))
  return found


def comparison(
  runs: Sequence[Run], attributes: Attributes, *, draws: int, seed: int = 0
) -> list[Table]:
  """Returns a table for each question, with a row for each answer and run.

  Marks are against the first run, on the images with the answer alone.

  Args:
    runs: with the same samples.
    attributes: of the samples of the first run, in their order.
    draws, seed: of the bootstrap.
  """
  aligned = defined_in_all(in_one_order(runs))
  functions = {
    run.name: samples_lib.statistics(same, run.threshold)[0]
    for run, same in zip(runs, aligned, strict=True)
  }
  found = []
  for name, rows in groups(attributes).items():
    cells = []
    for answer, of in rows.items():
      drawn = {
        run: [
          bootstrap.resample(
            _among(by_metric[m], of, len(attributes.uids)),
            len(of),
            draws=draws,
            seed=seed,
          )
          for m in HEADLINES
        ]
        for run, by_metric in functions.items()
      }
      first = drawn[runs[0].name]
      for run, results in drawn.items():
        shown = [
          _shown(one.value) + ('' if results is first else mark(m, base, one))
          for m, base, one in zip(HEADLINES, first, results, strict=True)
        ]
        cells.append([f'{answer}, {run}', f'{len(of):,}', *shown])
    found.append(Table(f'By {name}', '', ['', 'images', *HEADLINES], cells))
  return found


def _among(function: Statistic, rows: Int[np.ndarray, 'n'], samples: int) -> Statistic:
  """Returns a statistic of some of the samples."""

  def statistic(weights: Float[np.ndarray, 'D n']) -> Float[np.ndarray, 'D']:
    everywhere = np.zeros((len(weights), samples), weights.dtype)
    everywhere[:, rows] = weights
    return function(everywhere)

  return statistic


def _shown(value: float) -> str:
  return '–' if math.isnan(value) else f'{value:.3f}'
