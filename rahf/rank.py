"""Ranks models by votes between their images, with confidence intervals.

python -m rahf.rank VOTES.csv [--method=elo] [--out=ranking.csv] [--against=OTHER.csv]
"""

import argparse
import csv
import io
import math
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from rahf.data.preferences import votes as votes_lib
from rahf.data.preferences.votes import VoteTable
from rahf.drawing.markdown import markdown_table
from rahf.errors import InputError, run_command
from rahf.evaluation import model_ranking
from rahf.evaluation.model_ranking import Agreement, Ranking
from rahf.fileio import atomic_write
from rahf.fileio.paths import find, new
from rahf.fileio.validators import argument, real, whole
from rahf.metrics import ranking
from rahf.metrics.bootstrap import LEVEL, Interval, check_draws

_DESCRIPTION = """\
Ranks models by votes between two of them, with 95 % intervals.

VOTES is a table (CSV, TSV, JSONL, parquet) with the columns left, right and winner,
which is left, right or tie; or a folder of Pick-a-Pic's parquet files. --against
correlates the ranking with another: by other votes on the same models, or by a table
with the columns model and value (higher is better).
"""
METHODS = ('bradley_terry', 'elo')
# Elo plays every draw in every order.
DRAWS = {'bradley_terry': 1000, 'elo': 100}
# Options of one method only.
_OPTIONS = {
  'bradley_terry': {'prior': ranking.PRIOR},
  'elo': {'k': ranking.K, 'start': ranking.START, 'orders': ranking.ORDERS},
}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns the exit status: 0, or 2 for a user's mistake."""
  return run_command(_run, _parser().parse_args(argv))


def _run(arguments: argparse.Namespace) -> None:
  options = _options(arguments)
  if twice := [m for m in arguments.models or () if arguments.models.count(m) > 1]:
    raise InputError(f'--models: {twice[0]} stands twice')
  out = None if arguments.out is None else new(arguments.out, '--out')
  paths = [_local(arguments.votes, 'VOTES')]
  if arguments.against is not None:
    paths.append(_local(arguments.against, '--against'))
  if arguments.split is not None and all(path.is_file() for path in paths):
    raise InputError(f'--split is for a folder of pairs; {paths[0]} is none')
  table = _read(paths[0], arguments)
  # Before the work of ranking, which may take minutes.
  other = _read_other(table, paths[1], arguments) if paths[1:] else None
  ranked = _rank(table, arguments.method, options)
  print(_summary(table, arguments.method, options))
  print(f'\n{_table(table, ranked)}\n')
  _print_notes([*table.notes, *model_ranking.doubts(table), *_undefined(ranked)])
  if other is not None:
    _print_agreement(ranked, other, arguments, options)
  if out:
    atomic_write.write(out, comma_separated(ranked))
    print(f'Written to {out}')


def comma_separated(ranked: Ranking) -> str:
  """Returns CSV with a line for each model, best first; unknown bounds are empty."""
  file = io.StringIO()
  writer = csv.writer(file, lineterminator='\n')
  writer.writerow(('model', 'method', *Interval._fields, 'rank'))
  intervals = ranked.intervals()
  for number in _best_first(ranked):
    shown = ('' if math.isnan(bound) else repr(bound) for bound in intervals[number])
    writer.writerow(
      (ranked.models[number], ranked.method, *shown, ranked.ranks[number])
    )
  return file.getvalue()


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
  """Returns the method's options.

  Raises:
    InputError: one of another method is given.
  """
  found = {'draws': arguments.draws, 'seed': arguments.seed}
  if found['draws'] is None:
    found['draws'] = DRAWS[arguments.method]
  for method, defaults in _OPTIONS.items():
    for name, default in defaults.items():
      value = getattr(arguments, name)
      if method == arguments.method:
        found[name] = default if value is None else value
      elif value is not None:
        raise InputError(f'--{name} is for --method={method}')
  return found


def _local(path: str, name: str) -> pathlib.Path:
  return pathlib.Path(os.fspath(find(path, name)))


def _read(path: pathlib.Path, arguments: argparse.Namespace) -> VoteTable:
  return votes_lib.read(path, split=arguments.split or '', only=arguments.models)


def _read_other(
  table: VoteTable, path: pathlib.Path, arguments: argparse.Namespace
) -> VoteTable | dict[str, float]:
  """Returns the votes or scores of --against.

  Raises:
    InputError: they share too few models with the votes.
  """
  if votes_lib.holds_votes(path):
    other = _read(path, arguments)
    model_ranking.shared_models(table.models, other.models)
  else:
    other = votes_lib.read_scores(path)
    model_ranking.shared_models(table.models, [*other])
  return other


def _rank(
  table: VoteTable, method: str, options: dict[str, Any], stream: int = 0
) -> Ranking:
  ranker = {'bradley_terry': model_ranking.bradley_terry, 'elo': model_ranking.elo}
  return ranker[method](table, stream=stream, **options)


def _summary(table: VoteTable, method: str, options: dict[str, Any]) -> str:
  ties = np.count_nonzero(table.votes.score == 0.5)
  lines = [
    f'{len(table.votes.score):,} votes on {len(table.models)} models; ties, half a win '
    f'for both: {ties:,}.'
  ]
  if method == 'bradley_terry':
    lines.append(f'Bradley–Terry strengths, prior {options["prior"]:g}.')
  else:
    order = f'mean over {options["orders"]} random orders of the votes'
    lines.append(
      f'Elo ratings, K {options["k"]:g}, start {options["start"]:g}, '
      f'{order if options["orders"] else "in the order of the votes"}.'
    )
  if options['draws']:
    lines.append(
      f'{LEVEL:.0%} intervals from {options["draws"]:,} bootstrap draws of the votes, '
      f'seed {options["seed"]}.'
    )
  return '\n'.join(lines)


def _table(table: VoteTable, ranked: Ranking) -> str:
  digits = {'bradley_terry': 4, 'elo': 1}[ranked.method]
  wins = ranking.win_matrix(table.votes, len(table.models))
  won, voted = wins.sum(1), (wins + wins.T).sum(1)
  rows, intervals = [], ranked.intervals()
  for number in _best_first(ranked):
    rows.append(
      [
        ranked.models[number],
        str(ranked.ranks[number]),
        *_shown(intervals[number], digits),
        f'{voted[number]:,.0f}',
        f'{won[number] / voted[number]:.1%}',
      ]
    )
  value = {'bradley_terry': 'strength', 'elo': 'Elo'}[ranked.method]
  header = ['model', 'rank', value, f'{LEVEL:.0%} interval', 'votes', 'won']
  return markdown_table(header, rows)


def _best_first(ranked: Ranking) -> list[int]:
  """Returns the models' numbers by rank, then by name."""
  return sorted(
    range(len(ranked.models)), key=lambda n: (ranked.ranks[n], ranked.models[n])
  )


def _shown(interval: Interval, digits: int) -> tuple[str, str]:
  value, low, high = (f'{number:.{digits}f}' for number in interval)
  return value, '–' if math.isnan(interval.low) else f'[{low}, {high}]'


def _undefined(ranked: Ranking) -> list[str]:
  if not (number := np.isnan(ranked.drawn).any(1).sum()):
    return []
  return [
    f'{number:,} of {len(ranked.drawn):,} draws are left out of the intervals, as they '
    'have no strengths without a prior'
  ]


def _print_notes(notes: Sequence[str]) -> None:
  for note in notes:
    print(f'Note: {note}.')


def _print_agreement(
  ranked: Ranking,
  given: VoteTable | dict[str, float],
  arguments: argparse.Namespace,
  options: dict[str, Any],
) -> None:
  path = arguments.against
  if isinstance(given, VoteTable):
    other = _rank(given, arguments.method, options, stream=1)
    notes = [*given.notes, *model_ranking.doubts(given), *_undefined(other)]
  else:
    other, notes = model_ranking.given(given), []
  found = model_ranking.agreements(ranked, other)
  here, there = set(ranked.models), set(other.models)
  for where, alone in ((arguments.votes, here - there), (path, there - here)):
    if alone:
      notes.append(f'only in {where}, not compared: {", ".join(sorted(alone))}')
  print(f'\nCorrelation with {path} over {len(here & there)} models')
  print(f'\n{_agreement_table(found)}\n')
  _print_notes(notes)


def _agreement_table(found: Sequence[Agreement]) -> str:
  header = ['', 'correlation', f'{LEVEL:.0%} interval']
  rows = [[one.name, *_shown(one.interval, 3)] for one in found]
  if (orders := found[0].by_order.size) > 1:
    header.append(f'mean ± std of {orders} orders')
    for row, one in zip(rows, found, strict=True):
      row.append(f'{one.by_order.mean():.3f} ± {one.by_order.std(ddof=1):.3f}')
  return markdown_table(header, rows)


def _prior(value: float) -> str | None:
  # With less, strengths have too few digits.
  return None if value == 0 else real(1e-6, 1e6)(value)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m rahf.rank',
    description=_DESCRIPTION,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('votes', metavar='VOTES', help='table or folder of votes')
  add('--method', choices=METHODS, default=METHODS[0], help='default: %(default)s')
  add('--out', metavar='CSV', help='write the ranking to a new file')
  add('--against', metavar='OTHER', help='correlate with another ranking')
  add('--models', nargs='+', metavar='MODEL', help='rank these only')
  add(
    '--split',
    help='of a folder of pairs (default: the first that exists of '
    f'{", ".join(votes_lib.DEFAULT_SPLITS)})',
  )
  add(
    '--draws',
    type=argument(int, check_draws),
    help='of the bootstrap; 0 for no intervals (default: 1000, for Elo 100)',
  )
  add(
    '--seed',
    type=argument(int, whole(0)),
    default=0,
    help='of draws and orders (default: %(default)s)',
  )
  add(
    '--prior',
    type=argument(float, _prior),
    help='Bradley–Terry: imaginary votes of each model against an average one, half of '
    f'them won (default: {ranking.PRIOR:g})',
  )
  add(
    '--k',
    type=argument(float, real(1e-6, 1e3)),
    help=f'Elo: largest change by one vote (default: {ranking.K:g})',
  )
  add(
    '--start',
    type=argument(float, real(-1e6, 1e6)),
    help=f'Elo: rating before the first vote (default: {ranking.START:g})',
  )
  add(
    '--orders',
    type=argument(int, whole(0, 10_000)),
    help='Elo: random orders of the votes to average over; 0 keeps their own order '
    f'(default: {ranking.ORDERS})',
  )
  return parser


if __name__ == '__main__':
  sys.exit(main())
