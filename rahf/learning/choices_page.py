"""Renders the candidates of each prompt and what was chosen, as one HTML file.

Without script, nothing is loaded from elsewhere, and all text is escaped.
"""

import base64
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from rahf.drawing import html_page
from rahf.learning.best_of_n import Candidate, Choice
from rahf.learning.choices_folder import Thumbnails


class Shown(NamedTuple):
  """A candidate on the page.

  Attributes:
    name: of its file.
    picture: a data URL, '' if it cannot be read.
    value, scores: as text, the scores with their names.
    made_from: its prompt, if that is another one.
    error: why it has no scores, '' if it has.
  """

  name: str
  picture: str
  chosen: bool
  value: str
  scores: list[tuple[str, str]]
  made_from: str
  error: str


class Prompt(NamedTuple):
  """A prompt with its candidates, the best first."""

  text: str
  images: list[Shown]


def render(
  choices: Sequence[Choice], thumbnails: Thumbnails, by: str, shown: int
) -> str:
  """Returns the page.

  Args:
    by: the text of the expression by which was chosen.
    shown: how many of the prompts, the first, have pictures.
  """
  images = sum(len(one.ranked) + len(one.failed) for one in choices)
  chosen = sum(one.keep for one in choices)
  page = html_page.render(
    'rahf.learning',
    'choices_page',
    scripted=False,
    title='Chosen images',
    summary=f'{len(choices):,} prompts, {images:,} images, {chosen:,} chosen.',
    by=by,
    prompts=[_prompt(one, thumbnails) for one in choices[:shown]],
    more=f'{len(choices) - shown:,}' if len(choices) > shown else '',
  )
  return page.html


def _prompt(choice: Choice, thumbnails: Thumbnails) -> Prompt:
  kept = {one.position for one in choice.chosen}
  images = [
    _shown(one, thumbnails, chosen=one.position in kept)
    for one in (*choice.ranked, *choice.failed)
  ]
  return Prompt(choice.original, images)


def _shown(one: Candidate, thumbnails: Thumbnails, *, chosen: bool) -> Shown:
  data = thumbnails.read(one.position)
  encoded = base64.b64encode(data).decode()
  return Shown(
    pathlib.PurePosixPath(one.uid).name,
    f'data:image/webp;base64,{encoded}' if data else '',
    chosen,
    f'{one.value:.4g}',
    [(name, f'{score:.3f}') for name, score in one.scores.items()],
    '' if one.unchanged else one.prompt,
    one.error,
  )
