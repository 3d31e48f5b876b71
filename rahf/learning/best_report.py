"""Summarises Best of N in Markdown: what choosing gained, and what went wrong."""

import math
from collections.abc import Iterable, Mapping, Sequence

from rahf.drawing.markdown import markdown_table
from rahf.drawing.text_layout import one_line
from rahf.inference.output_ranges import Output
from rahf.learning import best_of_n
from rahf.learning.best_of_n import Candidate, Choice, Gain
from rahf.learning.score_expression import Expression
from rahf.metrics.bootstrap import DRAWS, LEVEL, Interval

# At most this many images or prompts are named; `choices.csv` has all.
NAMED = 10
MAX_NAME = 200  # characters


def report(
  choices: Sequence[Choice],
  expression: Expression,
  scores: Mapping[str, Output],
  models: Mapping[str, str],
) -> str:
  """Returns the text, which does not name what failed; see `notes`.

  Args:
    scores: by name.
    models: one line for each, by name, '' for the only one.
  """
  gains = best_of_n.gains(choices)
  images = sum(len(one.ranked) + len(one.failed) for one in choices)
  chosen = sum(one.keep for one in choices)
  lines = [
    *(f'Model{f" {name}" * bool(name)}: {line}' for name, line in models.items()),
    '',
    f'{len(choices):,} prompts, {images:,} images, {chosen:,} chosen by '
    f'`{expression.text}`. Each image is scored against its original prompt, whatever '
    'template it was made by.',
    '',
    *(f'- `{name}`: {output}' for name, output in scores.items()),
  ]
  if gains:
    # Without templates, all images are made from the prompt as it is.
    templates = not all(c.unchanged for one in choices for c in one.ranked)
    has_plain = templates and gains[0].plain_prompts > 0
    lines += ['', _table(gains, has_plain), '', _legend(gains[0], has_plain)]
  return '\n'.join(lines)


def _table(gains: Sequence[Gain], has_plain: bool) -> str:
  interval = f'{LEVEL:.0%} interval'
  header = ['mean', 'chosen', 'all', 'gain', interval]
  if has_plain:
    header += ['unchanged', 'gain over it', interval]
  rows = []
  for one in gains:
    row = [one.name, f'{one.best:.4f}', f'{one.all:.4f}', *_shown(one.over_all)]
    rows.append([*row, f'{one.plain:.4f}', *_shown(one.over_plain)][: len(header)])
  return markdown_table(header, rows)


def _shown(gain: Interval) -> tuple[str, str]:
  value, low, high = (f'{number:+.4f}' for number in gain)
  return value, '–' if math.isnan(gain.low) else f'[{low}, {high}]'


def _legend(gain: Gain, has_plain: bool) -> str:
  lines = [f'Means over {gain.prompts:,} prompts with a chosen image, of equal weight.']
  if has_plain:
    lines.append(
      '"Unchanged" are images made from the prompt as it is, of '
      f'{gain.plain_prompts:,} prompts.'
    )
  lines.append(
    f'Intervals are from {DRAWS:,} bootstrap draws of the prompts. The best of several '
    'values is above their mean even if the scorer only guesses: only scores outside '
    'the choice, or people, can show whether the images are better.'
  )
  return ' '.join(lines)


def notes(
  choices: Sequence[Choice],
  rest: Sequence[Candidate],
  minimum: float,
  truncated: Mapping[str, Sequence[str]],
) -> list[str]:
  """Returns what a user should know, one line each.

  Args:
    rest: images that say no prompt.
    minimum: of the value, as given or as the share to keep requires.
    truncated: by model, the prompts that were too long for it.
  """
  found = []
  failed = [*(one for choice in choices for one in choice.failed), *rest]
  if failed:
    named = _named(f'{one.uid} ({one.error})' for one in failed)
    found.append(f'Images without scores, never chosen ({len(failed):,}): {named}')
  if lost := [one.original for one in choices if not one.ranked]:
    found.append(
      f'Prompts without any image with scores ({len(lost):,}): {_named(lost)}'
    )
  if poor := [one.original for one in choices if one.ranked and not one.keep]:
    found.append(
      f'Prompts without a chosen image, since all values are below {minimum:g} '
      f'({len(poor):,}): {_named(poor)}'
    )
  for name, prompts in truncated.items():
    found.append(
      f'Prompts of which {name or "the model"} reads only the beginning '
      f'({len(prompts):,}): {_named(prompts)}'
    )
  return found


def _named(names: Iterable[str]) -> str:
  """Joins the first few names, each on one line and shortened."""
  texts = [*map(one_line, names)]
  texts = [f'{t[:MAX_NAME]}…' if len(t) > MAX_NAME else t for t in texts]
  more = len(texts) - NAMED
  return '; '.join(texts[:NAMED]) + (f'; and {more:,} more' if more > 0 else '')
