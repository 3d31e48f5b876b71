"""Tables about image generators, for Markdown, CSV and the page."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rahf.drawing.markdown import markdown_table
from rahf.errors import printable
from rahf.evaluation.generator_distances import Distances
from rahf.evaluation.generator_judgement import (
  Agreement,
  Comparison,
  Judgement,
  agreement,
)
from rahf.evaluation.generator_tally import LEFT_OUT
from rahf.metrics.bootstrap import LEVEL, Difference, Interval

TITLE = 'Image generators, judged by their images'
CSV_COLUMNS = ('generator', 'measure', 'value', 'low', 'high', 'rank')
_INTERVAL = f'{LEVEL:.0%} interval'
_NONE = '–'


class Table(NamedTuple):
  """A table of text.

  Attributes:
    heading: above it.
    text: what it shows.
    header, rows: the cells, of which the first column names the row.
    intervals: one for each row, to be drawn beside it; empty for none.
  """

  heading: str
  text: str
  header: Sequence[str]
  rows: Sequence[Sequence[str]]
  intervals: Sequence[Interval] = ()


class Report(NamedTuple):
  """Everything to show: paragraphs, tables, and sentences about what was left out."""

  title: str
  summary: str
  tables: Sequence[Table]
  notes: Sequence[str]


def report(judged: Judgement, distances: Sequence[Distances]) -> Report:
  """Returns all tables: an overview, one for each measure, agreement, and images."""
  several = len(judged.tallies) > 1
  tables = [_overview(judged, distances)] if several else []
  tables += [_measure_table(judged, one) for one in judged.comparisons]
  tables += [_distance_table(judged, one) for one in distances]
  notes = [*judged.notes, *(note for one in distances for note in one.notes)]
  if several and (found := agreement(_rankings(judged, distances))):
    tables += _agreement_tables(found)
  tables.append(_image_table(judged))
  # Paths in them may have line ends.
  notes = [' '.join(note.split()) for note in notes]
  return Report(TITLE, _summary(judged), tables, notes)


def markdown(shown: Report) -> str:
  """Returns the report as Markdown that is safe to print."""
  parts = [f'# {shown.title}', shown.summary]
  for table in shown.tables:
    parts += [f'## {table.heading}', table.text]
    parts.append(markdown_table(table.header, table.rows))
  if shown.notes:
    parts += ['## Notes', '\n'.join(f'- {note}.' for note in shown.notes)]
  text = '\n\n'.join(parts) + '\n'
  # Names of files may have characters that UTF-8 cannot encode.
  return printable(text).encode('utf-8', 'replace').decode()


def comma_separated(judged: Judgement, distances: Sequence[Distances]) -> str:
  """Returns CSV with a line for each generator and number; unknown ones are empty.

  Ranks are of the numbers on their lines: those of `/win_rate` are the ranking.
  """
  file = io.StringIO()
  writer = csv.writer(file, lineterminator='\n')
  writer.writerow(CSV_COLUMNS)
  for name, intervals, ranks in _numbers(judged, distances):
    ranks = ranks or [''] * len(judged.tallies)
    for generator, found, rank in zip(judged.tallies, intervals, ranks, strict=True):
      numbers = ('' if math.isnan(number) else repr(number) for number in found)
      writer.writerow((generator, name, *numbers, rank))
  return file.getvalue()


def _numbers(
  judged: Judgement, distances: Sequence[Distances]
) -> Iterator[tuple[str, Sequence[Interval], Sequence[int]]]:
  for one in judged.comparisons:
    yield f'{one.measure.name}/mean', one.means, one.mean_ranks
    if one.win_rates:
      yield f'{one.measure.name}/win_rate', one.win_rates, one.ranks
  for one in distances:
    unknown = [Interval(value, math.nan, math.nan) for value in one.values]
    yield one.name, unknown, one.ranks


def _summary(judged: Judgement) -> str:
  generators, prompts = len(judged.tallies), len(judged.shared)
  text = f'{_number(generators, "generator")} on {_number(prompts, "prompt")}'
  text += ' of which all have images. ' if generators > 1 else '. '
  text += 'Each prompt counts once: several images of it are averaged. '
  if generators > 1:
    text += (
      'Ranks are by win rate: how often a generator is better, over prompts and other '
      'generators, ties as half a win. '
    )
  if judged.draws and prompts > 1:
    text += (
      f'{LEVEL:.0%} intervals from {judged.draws:,} bootstrap draws of the prompts, '
      f'seed {judged.seed}. All generators share them: to tell two apart, look at the '
      'interval of their difference, not at whether those of their means overlap.'
    )
  return text.strip()


def _overview(judged: Judgement, distances: Sequence[Distances]) -> Table:
  rows = []
  for one in judged.comparisons:
    rates = (f'{rank} ({rate.value:.1%})' for rank, rate in _ranked(one))
    rows.append([_with_arrow(one), *rates])
  for one in distances:
    values = zip(one.ranks, one.values, strict=True)
    rows.append([f'{one.name} ↓', *(f'{rank} ({value:.4g})' for rank, value in values)])
  return Table(
    'Ranks',
    'Rank and win rate; for distances, rank and value. Arrows show which end of a '
    'measure is better.',
    ['', *judged.tallies],
    rows,
  )


def _ranked(one: Comparison) -> Iterator[tuple[int, Interval]]:
  return zip(one.ranks, one.win_rates, strict=True)


def _with_arrow(one: Comparison) -> str:
  return f'{one.measure.name} {"↑" if one.measure.higher_is_better else "↓"}'


def _measure_table(judged: Judgement, one: Comparison) -> Table:
  low, high = one.measure.range
  # Three digits of percents, or of PickScore's hundredths.
  digits = 4 if high - low <= 2 else 3
  names = list(judged.tallies)
  order = range(len(names))
  header = ['', 'mean', _INTERVAL]
  if one.win_rates:
    order = sorted(order, key=lambda number: (one.ranks[number], number))
    header = ['', 'rank', 'win rate', _INTERVAL, 'mean', _INTERVAL]
    header += ['mean − first', _INTERVAL]
  rows = []
  for number in order:
    cells = [names[number]]
    if one.win_rates:
      cells.append(str(one.ranks[number]))
      cells += _shown(one.win_rates[number], '.1%')
    cells += _shown(one.means[number], f'z.{digits}f')
    if one.win_rates:
      best = number == order[0]
      cells += (
        (_NONE, _NONE) if best else _shown(one.differences[number], f'+z.{digits}f')
      )
    rows.append(cells)
  text = f'{one.measure.meaning}; {low:g} to {high:g}, {one.measure.direction}.'
  intervals = [one.means[number] for number in order]
  return Table(_with_arrow(one), text[0].upper() + text[1:], header, rows, intervals)


def _distance_table(judged: Judgement, one: Distances) -> Table:
  names = list(judged.tallies)
  order = sorted(range(len(names)), key=lambda number: one.values[number])
  rows = []
  for number in order:
    rank = str(one.ranks[number]) if one.ranks else _NONE
    value, images = f'{one.values[number]:.4f}', f'{one.images[number]:,}'
    rows.append([names[number], rank, value, images])
  return Table(
    f'{one.name} ↓',
    f'Distance from {one.reference_images:,} reference images by {one.extractor}, '
    'lower is better; of all readable images, with or without a prompt.',
    ['', 'rank', one.name, 'images'],
    rows,
  )


def _rankings(
  judged: Judgement, distances: Sequence[Distances]
) -> dict[str, Sequence[float]]:
  """Returns what each ranking is by, higher is better."""
  found = {
    one.measure.name: [rate.value for rate in one.win_rates]
    for one in judged.comparisons
  }
  return found | {one.name: [-value for value in one.values] for one in distances}


def _agreement_tables(found: Agreement) -> list[Table]:
  numbers = [str(number) for number, _ in enumerate(found.names, 1)]
  labels = [f'{one} {name}' for one, name in zip(numbers, found.names, strict=True)]
  text = (
    'of the win rates by each two measures, over generators, from −1 to 1; 1 where '
    f'both rank them alike. {_NONE} where all generators are equal.'
  )
  return [
    Table(
      f'Agreement of rankings: {name}',
      f'{kind} {text}',
      ['', *numbers],
      [
        [label, *(_NONE if math.isnan(r) else f'{r:.3f}' for r in row)]
        for label, row in zip(labels, matrix, strict=True)
      ],
    )
    for name, kind, matrix in (
      ('Spearman', 'Rank correlation', found.spearman),
      ('Kendall', "Kendall's tau-b", found.kendall),
    )
  ]


def _image_table(judged: Judgement) -> Table:
  rows = []
  for name, tally in judged.tallies.items():
    counts = [tally.images, *(tally.left_out[kind] for kind in LEFT_OUT)]
    counts += [len(tally.prompts), tally.images_of(judged.shared)]
    rows.append([name, *(f'{count:,}' for count in counts)])
  return Table(
    'Images',
    'Images that were read, those left out by reason, prompts with scores, and the '
    f'images of the {_number(len(judged.shared), "compared prompt")}.',
    ['', 'images', *LEFT_OUT, 'prompts', 'compared images'],
    rows,
  )


def _number(number: int, what: str) -> str:
  return f'{number:,} {what}{"s"[: number != 1]}'


def _shown(found: Interval | Difference, form: str) -> tuple[str, str]:
  value, low, high = (format(number, form) for number in found[:3])
  return value, _NONE if math.isnan(found.low) else f'[{low}, {high}]'
