"""Writes prompts and captions of scenes, and lists words that the image contradicts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rahf.data.datasets.shapes.scene import Group, pick

COUNTS = ('one', 'two', 'three')
PLACES = (
  ('at the top left', 'at the top', 'at the top right'),
  ('on the left', 'in the middle', 'on the right'),
  ('at the bottom left', 'at the bottom', 'at the bottom right'),
)
OPENINGS = ('', '', '', 'a picture of', 'an image with')
ENDINGS = ('', '.', '.', '!')


class Prompt(NamedTuple):
  """A prompt; `misaligned` holds the positions of false words among label tokens."""

  text: str
  misaligned: tuple[int, ...]


class _Word(NamedTuple):
  text: str
  misaligned: bool


def write_prompt(rng: np.random.Generator, groups: Sequence[Group]) -> Prompt:
  """Describes the groups as asked for, in one of several sentence patterns."""
  place_first = rng.random() < 0.2
  opening = '' if place_first else pick(rng, OPENINGS)
  words = [_Word(text, False) for text in opening.split()]
  text = opening
  link = pick(rng, ('; ', ', ', ' and ') if place_first else (', ', ' and '))
  for i, group in enumerate(groups):
    noun, place = _noun(group), _place_words(group)
    colon = place_first and place and rng.random() < 0.5
    phrases = [place, noun] if place_first else [noun, place]
    if i:
      words += [_Word(word, False) for word in link.strip(' ,;').split()]
      text += link
    elif text:
      text += ' '
    words += [word for phrase in phrases for word in phrase]
    joined = [' '.join(word.text for word in phrase) for phrase in phrases if phrase]
    text += (': ' if colon else ' ').join(joined)
  misaligned = tuple(i for i, word in enumerate(words) if word.misaligned)
  return Prompt(text + pick(rng, ENDINGS), misaligned)


def write_caption(groups: Sequence[Group], *, sizes: bool = True) -> str:
  """Says everything about the groups as drawn, from the top left to the bottom right.

  Such as 'one small red circle at the top, two small blue rings on the left'.

  Args:
    sizes: whether to mention them, which a world of one size does not.
  """
  stated = frozenset({'count', 'place', *(['size'] if sizes else [])})
  parts = []
  for group in sorted(groups, key=lambda group: (group.drawn.row, group.drawn.column)):
    said = group._replace(asked=group.drawn, stated=stated)
    words = [*_noun(said), *_place_words(said)]
    parts.append(' '.join(word.text for word in words))
  return ', '.join(parts)


def plural(kind: str) -> str:
  return {'cross': 'crosses'}.get(kind, kind + 's')


def _noun(group: Group) -> list[_Word]:
  asked, false = group.asked, group.false
  colour_first = 'size' not in group.stated
  vowel = (asked.colour if colour_first else asked.size)[0] in 'aeiou'
  article = 'an' if vowel else 'a'
  counted = 'count' in group.stated
  number = COUNTS[asked.count - 1] if counted else article
  words = [_Word(number, counted and 'count' in false)]
  if not colour_first:
    words.append(_Word(asked.size, 'size' in false))
  kind = plural(asked.kind) if asked.count > 1 else asked.kind
  return [*words, _Word(asked.colour, 'colour' in false), _Word(kind, 'kind' in false)]


def _place_words(group: Group) -> list[_Word]:
  if 'place' not in group.stated:
    return []
  false = group.false
  wrong = {
    'top': 'row' in false,
    'bottom': 'row' in false,
    'left': 'column' in false,
    'right': 'column' in false,
    'middle': 'row' in false or 'column' in false,
  }
  text = PLACES[group.asked.row][group.asked.column]
  return [_Word(word, wrong.get(word, False)) for word in text.split()]
