"""Which of several runs is better, and how sure that is.

Runs are compared on the same samples and the same draws of them, metric by metric, each
with the first (`metrics/bootstrap.py`).
"""

import argparse
import csv
import io
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath
from tqdm import tqdm

from rahf import samples as samples_lib
from rahf.errors import InputError
from rahf.metrics import bootstrap
from rahf.metrics.bootstrap import Difference, Interval, Resampled
from rahf.samples import Sample
from rahf.tables import NOTE, Table, paper_tables, to_latex, to_markdown

BETTER, WORSE = '▲', '▼'
LEGEND = (
  f'{BETTER} better and {WORSE} worse than the first run: the 95 % interval of the '
  'difference, bootstrapped over the samples, leaves out 0. One in twenty metrics of '
  'equal runs does so too.'
)


class Run(NamedTuple):
  """An evaluation of one checkpoint on one split.

  Attributes:
    threshold: of constrained decoding; None without it.
  """

  name: str
  samples: list[Sample]
  threshold: float | None


class Comparison(NamedTuple):
  """Every metric of every run, over the same draws.

  Attributes:
    size: how many samples there are.
    results: by run, then by metric.
    thresholds: by run.
  """

  size: int
  results: Mapping[str, Mapping[str, Resampled]]
  thresholds: Mapping[str, float | None]

  @property
  def first(self) -> str:
    return next(iter(self.results))

  def difference(self, run: str, metric: str) -> Difference:
    """Returns how much larger a metric is than in the first run."""
    return bootstrap.difference(
      self.results[self.first][metric], self.results[run][metric]
    )

  def mark(self, run: str, metric: str) -> str:
    """Returns BETTER or WORSE where a run differs significantly from the first."""
    found = self.difference(run, metric)
    if run == self.first or not found.significant:
      return ''
    return BETTER if (found.value > 0) == higher_is_better(metric) else WORSE


def read_run(run: epath.Path, split: str) -> Run:
  """Reads the newest evaluation of a split.

  Args:
    run: a work directory, or a file `<split>-<step>.samples.jsonl`.

  Raises:
    InputError: there is no evaluation, or it cannot be read.
  """
  name, path = run.name, run
  if not run.is_file():
    steps = {}
    for file in (run / 'eval').glob(f'{split}-*.samples.jsonl'):
      if found := re.fullmatch(rf'{re.escape(split)}-(\d+)\.samples\.jsonl', file.name):
        steps[int(found[1])] = file
    if not steps:
      raise InputError(
        f'{run} has no evaluation of the split {split!r} that keeps samples; make one '
        f'with --mode=eval --config.eval.split={split}'
      )
    path = steps[max(steps)]
  found = samples_lib.read(path)
  metrics = path.parent / f'{path.name.removesuffix(".samples.jsonl")}.json'
  threshold = None
  if metrics.exists():
    key = 'keywords_constrained/threshold'
    threshold = json.loads(metrics.read_text()).get(key)
  return Run(name, found, threshold)


def compare(
  runs: Sequence[Run], *, draws: int = bootstrap.DRAWS, seed: int = 0
) -> Comparison:
  """Resamples every metric of every run.

  Raises:
    InputError: two runs have one name, or are not of the same annotated samples.
  """
  names = [run.name for run in runs]
  if len(set(names)) < len(names):
    raise InputError(f'runs need different names, not {", ".join(names)}')
  order = [sample.uid for sample in runs[0].samples]
  functions = {}
  for run in runs:
    check_same_samples(runs[0], run)
    by_uid = {sample.uid: sample for sample in run.samples}
    functions[run.name], _ = samples_lib.statistics(
      [by_uid[uid] for uid in order], run.threshold
    )
  shared = [
    metric
    for metric in functions[names[0]]
    if all(metric in f for f in functions.values())
  ]
  results: dict[str, dict[str, Resampled]] = {name: {} for name in names}
  work = [(name, metric) for name in names for metric in shared]
  for name, metric in tqdm(work, 'resample', unit='metric', leave=False, disable=None):
    results[name][metric] = bootstrap.resample(
      functions[name][metric], len(order), draws=draws, seed=seed
    )
  return Comparison(len(order), results, {run.name: run.threshold for run in runs})


def check_same_samples(first: Run, other: Run) -> None:
  """Raises InputError unless both runs are of the same annotated samples."""
  one, two = ({s.uid: s for s in run.samples} for run in (first, other))
  if differing := sorted(one.keys() ^ two.keys()):
    raise InputError(
      f'{first.name} has {len(one)} samples and {other.name} {len(two)}, of which '
      f'{len(differing)} are not in both, such as {differing[0]}; evaluate both on the '
      'same split of the same data'
    )
  for uid, sample in one.items():
    same = sample.truth == two[uid].truth and np.array_equal(
      sample.annotated, two[uid].annotated, equal_nan=True
    )
    if not same:
      raise InputError(
        f'{first.name} and {other.name} have different annotations of {uid}; evaluate '
        'both on the same version of the data'
      )


def higher_is_better(metric: str) -> bool:
  return metric.rsplit('/', 1)[-1] not in ('mse', 'mse_empty', 'kld')


def markdown(comparison: Comparison, title: str) -> str:
  """Returns the paper's tables with the runs' rows, and all intervals."""
  sections = [f'# {title}', *map(to_markdown, _tables(comparison)), LEGEND, NOTE]
  return '\n\n'.join(sections) + '\n'


def latex(comparison: Comparison) -> str:
  """Returns the same tables for LaTeX, with the packages booktabs and amssymb."""
  return '\n\n'.join(map(to_latex, _tables(comparison))) + '\n'


def comma_separated(comparison: Comparison) -> str:
  """Returns a line for each run and metric; empty is what is not defined."""
  file = io.StringIO()
  writer = csv.writer(file, lineterminator='\n')
  writer.writerow(
    (
      'metric',
      'run',
      *Interval._fields,
      *(f'difference_{f}' for f in Difference._fields),
    )
  )
  for run, results in comparison.results.items():
    for metric, found in results.items():
      numbers = *found.interval, *comparison.difference(run, metric)
      shown = ('' if math.isnan(number) else f'{number:.6g}' for number in numbers)
      writer.writerow((metric, run, *shown))
  return file.getvalue()


def _tables(comparison: Comparison) -> list[Table]:
  values, marks = {}, {}
  for run, results in comparison.results.items():
    values[run] = {metric: found.value for metric, found in results.items()}
    if comparison.thresholds[run] is not None:
      values[run]['keywords_constrained/threshold'] = comparison.thresholds[run]
    marks[run] = {metric: comparison.mark(run, metric) for metric in results}
  return [*paper_tables(values, marks), _intervals(comparison)]


def _intervals(comparison: Comparison) -> Table:
  first, *others = comparison.results
  header = ['', first]
  for run in others:
    header += [run, f'{run} less {first}', 'p']
  rows = []
  for metric, found in comparison.results[first].items():
    digits = 5 if metric.rsplit('/', 1)[-1] in ('mse', 'mse_empty') else 3
    row = [metric, _shown(found.interval, digits)]
    for run in others:
      grown = comparison.difference(run, metric)
      row += [
        _shown(comparison.results[run][metric].interval, digits),
        _shown(Interval(*grown[:3]), digits) + comparison.mark(run, metric),
        '–' if math.isnan(grown.p) else f'{grown.p:.3f}',
      ]
    rows.append(row)
  title = f'All metrics with 95 % intervals, {comparison.size} samples'
  return Table(title, '', header, rows)


def _shown(interval: Interval, digits: int) -> str:
  if math.isnan(interval.value):
    return '–'
  value, low, high = (f'{number:.{digits}f}' for number in interval)
  return f'{value} [{low}, {high}]'


def main(argv: Sequence[str] | None = None) -> int:
  """Runs python -m rahf.evaluate; returns the exit status, 2 for a user's mistake."""
  arguments = _parser().parse_args(argv)
  runs = [epath.Path(run) for run in arguments.runs]
  try:
    found = compare(
      [read_run(run, arguments.split) for run in runs], draws=arguments.draws
    )
    title = f'Comparison on the {arguments.split} split'
    text = markdown(found, title)
    for suffix, content in (
      ('.md', text),
      ('.csv', comma_separated(found)),
      ('.tex', latex(found)),
    ):
      epath.Path(arguments.out + suffix).write_text(content)
  except (InputError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  print(f'{text}\nWritten to {arguments.out}.md, .csv and .tex')
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m rahf.evaluate',
    description='What to do with what python -m rahf.main --mode=eval has written.',
  )
  commands = parser.add_subparsers(required=True, metavar='COMMAND')
  comparison = commands.add_parser(
    'compare',
    help='say which run is better, and how sure that is',
    description="Prints the paper's tables with the runs' rows, and every metric with "
    'its interval and its difference from the first run.',
  )
  add = comparison.add_argument
  add(
    'runs', nargs='+', metavar='RUN', help='work directories, or .samples.jsonl files'
  )
  add('--split', default='test', help='what was evaluated (default: test)')
  add('--draws', type=int, default=1000, help='of the bootstrap (default: 1000)')
  add('--out', default='comparison', help='files to write, without .md, .csv, .tex')
  return parser
