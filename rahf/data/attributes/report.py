"""Counts, tables and charts of attributes."""

import collections
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from rahf.data.attributes.sampling import Quotas, rounded
from rahf.data.attributes.table import Attributes
from rahf.drawing import charts
from rahf.drawing.markdown import markdown_table

SHOWN_UNKNOWN = 'unknown'


def counts(attributes: Attributes) -> dict[str, dict[str, int]]:
  """Returns the number of images by question and answer, the most frequent first."""
  return {
    name: dict(
      collections.Counter(answer or SHOWN_UNKNOWN for answer in column).most_common()
    )
    for name, column in attributes.answers.items()
  }


def answers_table(attributes: Attributes) -> str:
  """Returns a table of the answers: images, share, mean confidence."""
  rows = []
  for name, found in counts(attributes).items():
    column = np.array([a or SHOWN_UNKNOWN for a in attributes.answers[name]])
    for answer, number in found.items():
      sure = attributes.confidences[name][column == answer].mean()
      shown = '' if answer == SHOWN_UNKNOWN else f'{sure:.2f}'
      rows.append([name, answer, f'{number:,}', _share(number, len(column)), shown])
  return markdown_table(
    ['question', 'answer', 'images', 'share', 'mean confidence'], rows
  )


def sample_report(
  before: Attributes, after: Attributes, quotas: Quotas, facts: Sequence[str]
) -> str:
  """Returns what was drawn, as Markdown.

  Args:
    before: of all images.
    after: of those that were drawn.
    facts: sentences about how they were drawn.
  """
  rows, drawn = [], counts(after)
  for name, found in counts(before).items():
    wanted = rounded(quotas[name], len(after.uids)) if name in quotas else {}
    for answer, number in found.items():
      chosen = drawn[name].get(answer, 0)
      quota = f'{wanted.get(answer, 0):,}' if name in quotas else ''
      rows.append(
        [
          name,
          answer,
          f'{number:,}',
          _share(number, len(before.uids)),
          quota,
          f'{chosen:,}',
          _share(chosen, len(after.uids)),
        ]
      )
  header = ['question', 'answer', 'before', 'share', 'quota', 'drawn', 'share']
  lines = '\n'.join(f'- {fact}' for fact in facts)
  return f'# Sampled images\n\n{lines}\n\n{markdown_table(header, rows)}\n'


def draw(parts: Mapping[str, Attributes]) -> UInt8[np.ndarray, '_ _ 3']:
  """Draws the shares of the answers, one panel per question.

  Args:
    parts: by legend label, such as 'before' and 'after', or names of splits.
  """
  names = list(dict.fromkeys(name for one in parts.values() for name in one.answers))
  panels = {
    name: {
      label: {
        answer: number / len(one.uids)
        for answer, number in counts(one).get(name, {}).items()
      }
      for label, one in parts.items()
    }
    for name in names
  }
  return charts.bars(panels, 'share of the images')


def _share(number: int, total: int) -> str:
  return f'{number / max(total, 1):.1%}'
