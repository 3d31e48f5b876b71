"""What `python -m rahf.evaluate preferences` prints and writes.

In the new folder:
  preferences.md   what is printed
  metrics.json     all numbers by model
  NAME.md          tables of each model, also by generator
  NAME.csv         its votes, which `python -m rahf.rank` takes (`votes`)
"""

import collections
import csv
import functools
import io
import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from etils import epath

from rahf.data.preferences import pair_tally
from rahf.data.preferences.pair_truth import PairTruth
from rahf.data.preferences.votes import check_name
from rahf.drawing.markdown import markdown_table
from rahf.errors import InputError
from rahf.evaluation import preference_accuracy
from rahf.evaluation.preference_tables import PreferenceReport, bounds, percent
from rahf.fileio.staged_folder import staged
from rahf.inference.score_pairs import LOWEST_SCALE, ScoredSplit
from rahf.metrics.bootstrap import Interval
from rahf.metrics.correlation import srcc

TABLE = 'preferences'
COLUMNS = (
  *('ranking_id', 'left', 'right', 'winner'),
  *('people', 'score_left', 'score_right'),
)
_WINNERS = {1.0: 'left', 0.5: 'tie', 0.0: 'right'}


class Judged(NamedTuple):
  """A model's report on the split, and the pairs that it is made from.

  Attributes:
    score: the name of the score that decides.
    scale: that its scores were multiplied by for the report.
    split: with the scores that the model gives.
  """

  score: str
  scale: float
  report: PreferenceReport
  split: ScoredSplit


def describe(
  judged: Mapping[str, Judged], title: str, truth: PairTruth, *, writes: bool
) -> str:
  """Returns a table with a row for each model, and notes, as Markdown.

  Args:
    truth: what is known of the pairs.
    writes: whether the votes are written, too.
  """
  first = next(iter(judged.values())).report
  header = [
    *('', 'score', 'ties half, %', 'threshold', 'ties dropped, %', 'pairs'),
    'SRCC with people',
  ]
  rows = []
  for name, one in judged.items():
    half, dropped = map(_accuracy, _two_protocols(one.report.accuracies))
    report = one.report
    cells = [half, f'{report.threshold:.1f}', dropped, f'{report.pairs:,}']
    cells.append(_correlation(report.metrics()['models/srcc']))
    if truth.quality:
      cells.append(_correlation(_srcc_with_truth(report, truth)))
    rows.append([name, one.score, *cells])
  if truth.quality:
    header.append('SRCC with the truth')
  rows.append(
    ['always tie (floor)', '', percent(first.accuracies['accuracy/always_tie'].value)]
  )
  if first.ceilings:
    half, dropped = map(percent, _two_protocols(first.ceilings))
    rows.append(['best possible', '', half, '', dropped])
  rows = [row + [''] * (len(header) - len(row)) for row in rows]
  notes = _notes(judged, truth, writes)
  return '\n\n'.join([f'# {title}', markdown_table(header, rows), *notes]) + '\n'


def write(folder: epath.Path, text: str, judged: Mapping[str, Judged]) -> None:
  """Writes the table, all metrics, and each model's tables and votes."""
  with staged(folder) as new:
    new.mkdir()
    (new / f'{TABLE}.md').write_text(text)
    metrics = {name: one.report.metrics() for name, one in judged.items()}
    for name, found in metrics.items():
      for key, value in found.items():
        found[key] = value if np.isfinite(value) else None
      (new / f'{name}.csv').write_text(votes(judged[name]))
      (new / f'{name}.md').write_text(judged[name].report.text(name))
    (new / 'metrics.json').write_text(json.dumps(metrics, indent=2) + '\n')


def votes(judged: Judged) -> str:
  """Returns CSV with a line for each pair, which `python -m rahf.rank` takes.

  `winner` is the model's choice, with ties at its threshold; `people` is theirs. Scores
  are those that the model gives. Pairs of generators without a usable name are left
  out.
  """
  file = io.StringIO()
  writer = csv.writer(file, lineterminator='\n')
  writer.writerow(COLUMNS)
  pairs = judged.split.pairs
  said = preference_accuracy.choices(
    judged.split.scaled(judged.scale), judged.report.threshold
  )
  for row, models in enumerate(pairs.models):
    if all(map(_is_usable, models)):
      writer.writerow(
        (
          judged.split.ranking_ids[row],
          *models,
          _WINNERS[said[row]],
          _WINNERS[pairs.preference[row]],
          *(f'{score:.6g}' for score in pairs.scores[row]),
        )
      )
  return file.getvalue()


def _notes(
  judged: Mapping[str, Judged], truth: PairTruth, writes: bool
) -> Iterator[str]:
  chosen_on = next(iter(judged.values())).report.chosen_on
  ranks = 'SRCC is the rank correlation of the generators: their shares of wins by the '
  ranks += 'model, with those by people'
  if truth.quality:
    ranks += ', and with the quality that they are known to have'
  yield (
    'Accuracies with 95 % intervals over prompts. Thresholds for ties are chosen on '
    f'{chosen_on}. {ranks}.'
  )
  scales = {name: one.scale for name, one in judged.items()}
  fitted = [f'{n} by {s:.3g}' for n, s in scales.items() if s not in (1, LOWEST_SCALE)]
  if fitted:
    yield f'Scores were multiplied so as to fit people there: {", ".join(fitted)}.'
  for name, one in judged.items():
    if one.scale == LOWEST_SCALE:
      yield (
        f'{name}: its scores do not agree with people there. They were made almost '
        'equal, so that any threshold above 0 calls every pair a tie.'
      )
    for sentence in pair_tally.describe(one.report.problems):
      yield f'{name}: {sentence}'
    usable = collections.Counter(
      all(map(_is_usable, models)) for models in one.split.pairs.models
    )
    if writes and usable[False]:
      yield (
        f'{name}: Pairs that are not among its votes, as a generator has no name or '
        f'one that python -m rahf.rank does not take: {usable[False]:,}.'
      )


def _two_protocols(accuracies: Mapping) -> tuple:
  return accuracies['accuracy/ties_half'], accuracies['accuracy/ties_dropped']


def _accuracy(found: Interval) -> str:
  shown = bounds(found)
  return percent(found.value) + (f' ({shown})' if shown != '–' else '')


def _correlation(value: float) -> str:
  return '–' if np.isnan(value) else f'{value:.3f}'


def _srcc_with_truth(report: PreferenceReport, truth: PairTruth) -> float:
  """Returns how well the model ranks the generators; NaN if one is not known."""
  quality = [truth.quality.get(row.model) for row in report.models]
  if None in quality or len(quality) < 2:
    return float('nan')
  return srcc(np.array([row.scorer for row in report.models]), np.array(quality))


@functools.cache
def _is_usable(model: str) -> bool:
  """Returns whether votes may have this name of a model."""
  try:
    check_name(model, '')
  except InputError:
    return False
  return True
