"""Reads what a prompt of shapes asks for, the inverse of `prompt.write_prompt`."""

import re
from typing import NamedTuple

from rahf.data.datasets.shapes.prompt import COUNTS, PLACES, plural
from rahf.data.datasets.shapes.world import COLOURS, KINDS
from rahf.errors import InputError

_KINDS = {form: kind for kind in KINDS for form in (kind, plural(kind))}
_NOUN = re.compile(
  rf'\b(?:(?P<count>{"|".join(COUNTS)})|an?) (?:(?:small|large) )?'
  rf'(?P<colour>{"|".join(COLOURS)}) (?P<kind>{"|".join(_KINDS)})\b'
)
_PLACES = {
  words: (row, column)
  for row, line in enumerate(PLACES)
  for column, words in enumerate(line)
}
# 'at the top left' before 'at the top'.
_PLACE = re.compile('|'.join(sorted(_PLACES, key=len, reverse=True)))


class AskedGroup(NamedTuple):
  """What a prompt says of a group; None where it says nothing.

  Attributes:
    place: row and column, 0 to 2 from the top left.
  """

  colour: str
  kind: str
  count: int | None
  place: tuple[int, int] | None


def read_prompt(text: str) -> tuple[AskedGroup, ...]:
  """Returns the groups that a prompt asks for.

  Raises:
    InputError: a part of the prompt asks for no coloured shapes.
  """
  groups = []
  for part in re.split(r'; |, | and ', text):
    noun, place = _NOUN.search(part), _PLACE.search(part)
    if not noun:
      raise InputError(
        f'the prompt {text!r} does not ask for shapes in {part!r}; the judge reads '
        "prompts such as 'two red circles on the left'"
      )
    count = noun['count'] and COUNTS.index(noun['count']) + 1
    where = _PLACES[place[0]] if place else None
    groups.append(AskedGroup(noun['colour'], _KINDS[noun['kind']], count, where))
  return tuple(groups)
