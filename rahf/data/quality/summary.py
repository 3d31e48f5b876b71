"""Summarises a prepared data set: tables on the screen, and charts."""

import pathlib

from rahf.data.attributes import report, table
from rahf.data.quality import figures, stats
from rahf.data.storage import prepared


def summarise(
  path: pathlib.Path, split: str | None = None, out: pathlib.Path | None = None
) -> None:
  """Prints a data set's statistics and draws its charts.

  Args:
    path: the prepared directory, or a folder above it.
    split: one split only; None for all.
    out: folder of the charts; None for `stats` in the prepared directory.

  Raises:
    InputError: the data set or the split does not exist, or its table of attributes
      lacks an image.
  """
  directory, _ = prepared.find(path)
  attributes = table.find(directory)
  facts = stats.collect(path, split)
  print(f'\n{stats.table(facts)}\n')
  if attributes:
    uids = [one.uid for found in facts.values() for one in found]
    print(f'{report.answers_table(attributes.of(uids, table.FILE))}\n')
  folder = out or directory / 'stats'
  print(f'Drawn: {folder}/{", ".join(figures.write(folder, facts, attributes))}')
