"""Draws contact sheets: small pictures in rows below a title, some of them framed."""

import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from rahf.drawing.text_layout import drawable, font, one_line, truncate, wrap

SIDE, GAP, MARGIN = 128, 12, 16  # of a picture's square, between them, at the edges
COLUMNS = 12
FRAME = 4
CAPTION = 36  # Two lines below a picture.
WIDTH = 2 * MARGIN + COLUMNS * (SIDE + GAP) - GAP
# A sheet ends before the row that would make it higher.
HEIGHT = 4000
MAX_TITLE = 400  # characters
TITLE, TEXT, SMALL = 18, 14, 11  # font sizes
PAPER, SHADE, INK, FAINT, CHOSEN = '#ffffff', '#f1f3f5', '#1f2933', '#66727f', '#1c5fc4'


class Tile(NamedTuple):
  """A picture with two lines below.

  Attributes:
    picture: a file's content, at most SIDE pixels wide and high; b'' for none. The
      pixels of small ones are drawn as squares.
    caption, note: the lines; the second is small.
    framed: whether it is framed, and its caption coloured.
  """

  picture: bytes
  caption: str
  note: str
  framed: bool = False


class Row(NamedTuple):
  """Pictures that belong together; more than COLUMNS take several lines."""

  title: str
  tiles: Sequence[Tile]


def sheets(rows: Iterable[Row]) -> Iterator[Image.Image]:
  """Yields sheets of as many rows as fit into HEIGHT, or of one; at most WIDTH wide."""
  strips: list[Image.Image] = []
  for row in rows:
    strip = _strip(row)
    if strips and MARGIN + strip.height + sum(s.height for s in strips) > HEIGHT:
      yield _sheet(strips)
      strips = []
    strips.append(strip)
  if strips:
    yield _sheet(strips)


def _sheet(strips: Sequence[Image.Image]) -> Image.Image:
  height = MARGIN + sum(strip.height for strip in strips)
  width = max(strip.width for strip in strips)
  sheet, top = Image.new('RGB', (width, height), PAPER), MARGIN
  for strip in strips:
    sheet.paste(strip, (0, top))
    top += strip.height
  return sheet


def _strip(row: Row) -> Image.Image:
  title = drawable(one_line(row.title))
  if len(title) > MAX_TITLE:
    title = f'{title[:MAX_TITLE]}…'
  words = [found.span() for found in re.finditer(r'\S+', title)]
  pieces = wrap(title, words, WIDTH - 2 * MARGIN, font(TITLE))
  line_height = TITLE + 6
  top = line_height * (1 + pieces[-1].line if pieces else 1) + GAP // 2
  lines = -(-len(row.tiles) // COLUMNS)
  height = top + lines * (SIDE + CAPTION + GAP) + GAP
  columns = min(len(row.tiles), COLUMNS)
  ends = [piece.left + font(TITLE).getlength(piece.text) for piece in pieces]
  width = MARGIN + max(*ends, columns * (SIDE + GAP) - GAP, SIDE) + MARGIN
  strip = Image.new('RGB', (min(math.ceil(width), WIDTH), height), PAPER)
  draw = ImageDraw.Draw(strip)
  for piece in pieces:
    corner = MARGIN + piece.left, piece.line * line_height
    draw.text(corner, piece.text, INK, font(TITLE))
  for number, tile in enumerate(row.tiles):
    line, column = divmod(number, COLUMNS)
    left = MARGIN + column * (SIDE + GAP)
    _draw_tile(strip, left, top + line * (SIDE + CAPTION + GAP), tile)
  return strip


def _draw_tile(strip: Image.Image, left: int, top: int, tile: Tile) -> None:
  draw = ImageDraw.Draw(strip)
  box = (left, top, left + SIDE - 1, top + SIDE - 1)
  draw.rectangle(box, SHADE)
  if tile.picture:
    picture = Image.open(io.BytesIO(tile.picture)).convert('RGB')
    if (factor := SIDE // max(picture.size)) > 1:
      enlarged = picture.width * factor, picture.height * factor
      picture = picture.resize(enlarged, Image.Resampling.NEAREST)
    corner = left + (SIDE - picture.width) // 2, top + (SIDE - picture.height) // 2
    strip.paste(picture, corner)
  if tile.framed:
    outer = (box[0] - FRAME, box[1] - FRAME, box[2] + FRAME, box[3] + FRAME)
    draw.rectangle(outer, outline=CHOSEN, width=FRAME)
  colour = CHOSEN if tile.framed else INK
  top += SIDE + FRAME + 1
  caption = truncate(drawable(one_line(tile.caption)), SIDE, font(TEXT))
  draw.text((left, top), caption, colour, font(TEXT))
  note = truncate(drawable(one_line(tile.note)), SIDE, font(SMALL))
  draw.text((left, top + TEXT + 4), note, FAINT, font(SMALL))
