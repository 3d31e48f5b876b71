"""Lays out text in pictures: wraps it into lines or truncates it.

Pillow's built-in font has only the letters of English; others are drawn as boxes.
"""

import bisect
import functools
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from PIL import ImageFont

# Letters and signs without a decomposition.
_LETTERS = str.maketrans(
  {
    'ß': 'ss',
    'ø': 'o',
    'Ø': 'O',
    'æ': 'ae',
    'Æ': 'Ae',
    'œ': 'oe',
    'ł': 'l',
    '–': '-',
    '—': '-',
  }
  | {'×': 'x', '’': "'"}
)


class Piece(NamedTuple):
  """Text at `left` pixels in a line; `word` is its number, or -1 between words."""

  text: str
  word: int
  line: int
  left: float


def wrap(
  prompt: str,
  spans: Sequence[tuple[int, int]],
  width: int,
  font: ImageFont.FreeTypeFont,
) -> list[Piece]:
  """Breaks a prompt into lines, before words or inside words too long for a line."""
  pieces, line, left, position = [], 0, 2.0, 0
  spaced = ''.join(' ' if char.isspace() else char for char in prompt)
  for word, (start, end) in enumerate([*spans, (len(prompt), len(prompt))]):
    for text, number in ((spaced[position:start], -1), (spaced[start:end], word)):
      if number >= 0 and left > 2 and left + font.getlength(text) > width:
        line, left = line + 1, 2.0
      while text:
        lengths = range(1, len(text) + 1)
        fits = bisect.bisect_right(
          lengths, width - left, key=lambda n, t=text: font.getlength(t[:n].rstrip())
        )
        # At least one character per line, or this would never end.
        fits = max(fits, 1)
        pieces.append(Piece(text[:fits], number, line, left))
        left += font.getlength(text[:fits])
        text = text[fits:]
        if text:
          line, left = line + 1, 2.0
    position = end
  return pieces


def truncate(text: str, width: float, font: ImageFont.FreeTypeFont) -> str:
  """Truncates text to a width in pixels."""
  if font.getlength(text) <= width:
    return text
  lengths = range(len(text))
  fits = bisect.bisect_right(
    lengths, width, key=lambda n: font.getlength(f'{text[:n]}…')
  )
  return f'{text[: max(fits - 1, 0)]}…'


def one_line(text: str) -> str:
  """Joins lines, and escapes characters that cannot be drawn, such as surrogates."""
  joined = ' '.join(text.split())
  return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in joined)


def drawable(text: str) -> str:
  """Returns text with accents left out, which the font lacks: u for ü, ss for ß."""
  decomposed = unicodedata.normalize('NFKD', text.translate(_LETTERS))
  return ''.join(char for char in decomposed if not unicodedata.combining(char))


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
  return ImageFont.load_default(size)
