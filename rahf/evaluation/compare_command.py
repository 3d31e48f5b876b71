"""The command `python -m rahf.compare`: arguments, tables and files."""

import argparse
import csv
import io
import math
import os
import pathlib
import re
from collections.abc import Sequence

from etils import epath

from rahf.data.attributes import table
from rahf.data.attributes.table import Attributes
from rahf.errors import InputError, fail
from rahf.evaluation import by_attribute
from rahf.evaluation import samples as samples_lib
from rahf.evaluation.paper_tables import (
  PUBLISHED_NOTE,
  Table,
  paper_tables,
  to_latex,
  to_latex_text,
  to_markdown,
)
from rahf.evaluation.significance import BETTER, WORSE, Comparison, Run, compare
from rahf.fileio import strict_json
from rahf.fileio.paths import find
from rahf.metrics import bootstrap
from rahf.metrics.bootstrap import Difference, Interval

LEGEND = (
  f'{BETTER} better and {WORSE} worse than the first run: the {bootstrap.LEVEL:.0%} '
  'interval of the difference, bootstrapped over the samples, excludes 0. This also '
  'happens for one in twenty metrics of equal runs.'
)


def read_run(run: epath.Path, split: str) -> Run:
  """Reads the newest evaluation of a split.

  Args:
    run: a work directory, or a file `<split>-<step>.samples.jsonl`.

  Raises:
    InputError: there is no evaluation, or it cannot be read.
  """
  path = run if run.is_file() else _newest(run, split)
  found = samples_lib.read(path)
  threshold = None
  if any(sample.truth and sample.p_misaligned for sample in found):
    threshold = _read_threshold(path)
  return Run(str(run), found, threshold)


def _newest(workdir: epath.Path, split: str) -> epath.Path:
  steps = {}
  for file in (workdir / 'eval').glob(f'{split}-*.samples.jsonl'):
    if found := re.fullmatch(rf'{re.escape(split)}-(\d+)\.samples\.jsonl', file.name):
      steps[int(found[1])] = file
  if not workdir.exists():
    raise InputError(f'{workdir} does not exist; give the work directories of runs')
  if not steps:
    raise InputError(
      f'{workdir} has no evaluation of the split {split!r} with samples; make one with '
      f'--mode=eval --config.eval.split={split}'
    )
  return steps[max(steps)]


def _read_threshold(path: epath.Path) -> float:
  """Returns the threshold that an evaluation used, from the metrics file beside it."""
  metrics = path.parent / f'{path.name.removesuffix(".samples.jsonl")}.json'
  try:
    return float(strict_json.read(metrics)['keywords_constrained/threshold'])
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise InputError(
      f'{metrics} has no threshold of constrained decoding; {path.name} needs the file '
      'that the evaluation wrote beside it'
    ) from error


def markdown(comparison: Comparison, more: Sequence[Table] = ()) -> str:
  """Returns the paper's tables with the runs' rows, all intervals, and more tables."""
  sections = [
    '# Comparison',
    *map(to_markdown, [*_tables(comparison), *more]),
    LEGEND,
    PUBLISHED_NOTE,
  ]
  return '\n\n'.join(sections) + '\n'


def latex(comparison: Comparison, more: Sequence[Table] = ()) -> str:
  """Returns the same in LaTeX, for the packages booktabs and amssymb."""
  notes = [to_latex_text(note) for note in (LEGEND, PUBLISHED_NOTE)]
  tables = [*_tables(comparison), *more]
  return '\n\n'.join([*map(to_latex, tables), *notes]) + '\n'


def comma_separated(comparison: Comparison) -> str:
  """Returns CSV with a line for each run and metric; undefined values are empty."""
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
  tables = [*paper_tables(values, marks), _intervals(comparison)]
  return tables + (
    [_undefined(comparison)] if any(comparison.undefined.values()) else []
  )


def _undefined(comparison: Comparison) -> Table:
  counts = comparison.undefined
  names = sorted({name for found in counts.values() for name in found})
  rows = [
    [
      name.removesuffix('/undefined'),
      *(str(int(found.get(name, 0))) for found in counts.values()),
    ]
    for name in names
  ]
  note = (
    'A correlation with a constant map is undefined. Maps for which any run leaves a '
    'metric undefined are excluded from the means of all runs.'
  )
  return Table('Maps without a metric', note, ['', *counts], rows)


# Below this, the bootstrap's intervals are too narrow.
FEW_SAMPLES = 30


def _intervals(comparison: Comparison) -> Table:
  first, *others = comparison.results
  header = ['', first]
  for run in others:
    header += [run, f'{run} − {first}', 'p']
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
  title = f'All metrics with {bootstrap.LEVEL:.0%} intervals, {comparison.size} samples'
  note = ''
  if comparison.size < FEW_SAMPLES:
    note = (
      f'With fewer than {FEW_SAMPLES} samples, the intervals are too narrow, and the '
      'marks of significance mean nothing.'
    )
  return Table(title, note, header, rows)


def _shown(interval: Interval, digits: int) -> str:
  if math.isnan(interval.value):
    return '–'
  value, low, high = (f'{number:.{digits}f}' for number in interval)
  # One sample has no interval.
  return value if math.isnan(interval.low) else f'{value} [{low}, {high}]'


def main(argv: Sequence[str] | None = None) -> int:
  """Runs python -m rahf.compare; returns the exit status, 2 for a user's mistake."""
  arguments = _parser().parse_args(argv)
  try:
    out = find(arguments.out, '--out')
    if not out.parent.is_dir():
      raise InputError(f'--out={out}: the folder {out.parent} does not exist')
    runs = [read_run(find(run, 'RUN'), arguments.split) for run in arguments.runs]
    runs = _shortly_named(runs)
    attributes = _read_attributes(arguments.attributes, runs[0])
    found = compare(runs, draws=arguments.draws)
    more = []
    if attributes:
      more = by_attribute.comparison(runs, attributes, draws=arguments.draws)
    text = markdown(found, more)
    print(text)
    for suffix, content in (
      ('.md', text),
      ('.csv', comma_separated(found)),
      ('.tex', latex(found, more)),
    ):
      epath.Path(f'{out}{suffix}').write_text(content)
  except (InputError, OSError) as error:
    return fail(error)
  print(f'Written to {out}.md, .csv and .tex')
  return 0


def _read_attributes(path: str | None, run: Run) -> Attributes | None:
  """Reads the attributes of a run's samples, if a table is given."""
  if path is None:
    return None
  uids = [sample.uid for sample in run.samples]
  return table.read(path).of(uids, f'--attributes={path}')


def _shortly_named(runs: Sequence[Run]) -> list[Run]:
  """Names runs by as many last parts of their paths as make the names distinct."""
  paths = [pathlib.PurePath(os.path.abspath(run.name)).parts for run in runs]
  for length in range(1, max(map(len, paths))):
    names = ['/'.join(parts[-length:]) for parts in paths]
    if len(set(names)) == len(names):
      break
  return [run._replace(name=name) for run, name in zip(runs, names, strict=True)]


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m rahf.compare',
    description="Prints the paper's tables 1 to 4 with the rows of evaluated runs, and "
    'every metric with its interval and its difference from the first run. A dash '
    'means that a model does not predict something.',
  )
  add = parser.add_argument
  add(
    'runs', nargs='+', metavar='RUN', help='work directories, or .samples.jsonl files'
  )
  add('--split', default='test', help='the evaluated split (default: test)')
  add(
    '--draws',
    type=int,
    default=bootstrap.DRAWS,
    help='draws of the bootstrap (default: %(default)s)',
  )
  add(
    '--attributes',
    metavar='TABLE',
    help='also compare by attributes (of `python -m rahf.data attributes`)',
  )
  add('--out', default='comparison', help='files to write, without .md, .csv, .tex')
  return parser
