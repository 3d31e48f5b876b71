"""Tables of how well a scorer predicts people's preferences."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rahf.data.preferences import pair_tally
from rahf.data.preferences.pair_tally import Problem
from rahf.drawing.markdown import markdown_table
from rahf.evaluation import preference_accuracy
from rahf.evaluation.preference_accuracy import JudgedPairs, ModelRow
from rahf.metrics.bootstrap import Interval
from rahf.metrics.correlation import srcc

TITLES = {
  'accuracy/ties_half': 'accuracy, a tie against a choice counts half',
  'accuracy/always_tie': 'the same, always saying tie (floor)',
  'accuracy/ties_dropped': 'accuracy without the ties of people',
}


class PreferenceReport(NamedTuple):
  """How well a scorer predicts the preferences of one split.

  Attributes:
    accuracies: with intervals, by the names of `preference_accuracy.measure`.
    threshold: for ties, a difference of probabilities.
    chosen_on: the split that the threshold was chosen on.
    pairs, ties: number of pairs judged, and of those that people call a tie.
    problems: number of pairs by what is wrong with them.
    labelled_only: whether pairs with has_label False were left out.
    models: a row for each generator, the most preferred by people first.
    ceilings: the best possible accuracies by name; empty if they are not known.
  """

  accuracies: Mapping[str, Interval]
  threshold: float
  chosen_on: str
  pairs: int
  ties: int
  problems: Mapping[Problem, int]
  labelled_only: bool
  models: Sequence[ModelRow]
  ceilings: Mapping[str, float]

  def metrics(self) -> dict[str, float]:
    """Returns all values by name."""
    ranks = [[row.people, row.scorer] for row in self.models]
    return {
      **{name: interval.value for name, interval in self.accuracies.items()},
      'accuracy/threshold': self.threshold,
      'models/srcc': srcc(*np.transpose(ranks)) if len(ranks) > 1 else float('nan'),
      'pairs': self.pairs,
      'pairs/ties': self.ties,
      'pairs/dropped': pair_tally.damaged(self.problems),
      'pairs/unlabelled': self.problems.get(Problem.UNLABELLED, 0),
      'pairs/truncated': self.problems.get(Problem.TRUNCATED, 0),
    }

  def text(self, title: str) -> str:
    """Returns the tables as Markdown."""
    rows = [
      [TITLES[name], percent(interval.value), bounds(interval)]
      for name, interval in self.accuracies.items()
    ]
    header = ['', '%', 'interval']
    if self.ceilings:
      header.append('best possible, %')
      for row, name in zip(rows, self.accuracies, strict=True):
        known = name in self.ceilings and name != 'accuracy/always_tie'
        row.append(percent(self.ceilings[name]) if known else '–')
    left_out = 'left out' if self.labelled_only else 'included with their stored labels'
    notes = (
      f'{self.pairs:,} pairs, {self.ties:,} of them ties. '
      f'Pairs with has_label False are {left_out}. A tie is a difference of '
      f'probabilities of at most {self.threshold:.1f}, chosen on {self.chosen_on}. '
      'Intervals: 95 %, over prompts.'
    )
    notes = ' '.join([notes, *pair_tally.describe(self.problems)])
    parts = [f'# {title}', markdown_table(header, rows), notes]
    if self.models:
      parts += ['## By generator', self._by_model()]
    return '\n\n'.join(parts) + '\n'

  def _by_model(self) -> str:
    rows = [
      [row.model or 'unnamed', f'{row.pairs:,}', *map(percent, row[2:])]
      for row in self.models
    ]
    columns = ['generator', 'pairs', 'wins by people, %', 'by scorer, %', 'accuracy, %']
    return (
      markdown_table(columns, rows)
      + '\n\nPairs of two generators; a tie is half a win. Accuracy is without ties.'
    )


def make_report(
  pairs: JudgedPairs,
  *,
  problems: Mapping[Problem, int],
  labelled_only: bool,
  threshold: tuple[float, str] | None,
  split: str,
  ceilings: Mapping[str, float],
) -> PreferenceReport:
  """Measures a scorer on the pairs of a split.

  Args:
    problems: number of pairs by what is wrong with them; see `PreferenceReport`.
    threshold: for ties, and the split that it was chosen on; None chooses it on these
      pairs.
    split: its name.
    ceilings: the best possible accuracies by name, if they are known.
  """
  value, chosen_on = threshold or (preference_accuracy.choose_threshold(pairs), split)
  return PreferenceReport(
    accuracies=preference_accuracy.measure(pairs, value),
    threshold=value,
    chosen_on=chosen_on,
    pairs=len(pairs.preference),
    ties=int(pairs.ties.sum()),
    problems=problems,
    labelled_only=labelled_only,
    models=preference_accuracy.by_model(pairs),
    ceilings=ceilings,
  )


def percent(share: float) -> str:
  """Returns a share in percent; a dash if there is none."""
  return '–' if np.isnan(share) else f'{100 * share:.1f}'


def bounds(interval: Interval) -> str:
  """Returns the ends of an interval in percent; a dash if there is none."""
  _, low, high = interval
  return '–' if np.isnan(low) else f'{percent(low)} to {percent(high)}'
