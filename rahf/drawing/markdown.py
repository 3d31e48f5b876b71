"""Markdown tables."""

from collections.abc import Sequence

from rahf.errors import printable


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Returns a Markdown table: first column left-aligned, the others right-aligned.

  Cells may be any text, such as names of users' files: bars and characters that move
  the cursor are escaped, line ends become spaces.
  """
  header, *rows = ([*map(_escaped, line)] for line in (header, *rows))
  widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
  rule = ['-' * widths[0], *('-' * (width - 1) + ':' for width in widths[1:])]
  lines = [header, rule, *rows]
  return '\n'.join(
    '| '
    + ' | '.join(
      [line[0].ljust(widths[0])]
      + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
    )
    + ' |'
    for line in lines
  )


def _escaped(cell: str) -> str:
  return printable(' '.join(cell.splitlines())).replace('|', r'\|').replace('\t', ' ')
