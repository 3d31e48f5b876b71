"""Contact sheets: where pictures, frames and pages are."""

import io

import numpy as np
from PIL import Image, ImageColor

from rahf.drawing import contact_sheet
from rahf.drawing.contact_sheet import COLUMNS, GAP, MARGIN, SIDE, Row, Tile, sheets
from rahf.drawing.text_layout import drawable

CHOSEN = ImageColor.getrgb(contact_sheet.CHOSEN)
SHADE = ImageColor.getrgb(contact_sheet.SHADE)
COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]


def picture(colour, size=(SIDE, SIDE)) -> bytes:
  file = io.BytesIO()
  Image.new('RGB', size, colour).save(file, 'WEBP', lossless=True)
  return file.getvalue()


def middle(column: int) -> int:
  return MARGIN + column * (SIDE + GAP) + SIDE // 2


def find_rows(sheet: Image.Image, colour, column: int) -> np.ndarray:
  """Returns the lines in which the middle of a column has a colour."""
  return np.flatnonzero((np.asarray(sheet)[:, middle(column)] == colour).all(-1))


def test_pictures_stand_in_order_and_the_chosen_one_is_framed():
  tiles = [
    Tile(picture(colour), f'{number}', 'a.png', framed=number == 1)
    for number, colour in enumerate(COLOURS)
  ]
  (sheet,) = sheets([Row('a red circle', [*tiles, Tile(b'', 'no scores', 'b.png')])])
  assert sheet.width == 2 * MARGIN + 4 * SIDE + 3 * GAP
  tops = []
  for column, colour in enumerate(COLOURS):
    rows = find_rows(sheet, colour, column)
    assert len(rows) == SIDE
    tops.append(rows[0])
    above = sheet.getpixel((middle(column), int(rows[0]) - 1))
    assert (above == CHOSEN) == (column == 1)
  assert len({*tops}) == 1
  assert len(find_rows(sheet, SHADE, 3)) == SIDE


def test_many_pictures_take_several_lines_and_many_rows_several_sheets():
  tile = Tile(picture(COLOURS[0], (SIDE, SIDE // 2)), '0.5', 'a.png')
  row = Row('word ' * 300, [tile] * (COLUMNS + 1))
  pages = [*sheets([row] * 15)]
  assert len(pages) == 2
  assert all(page.height <= contact_sheet.HEIGHT for page in pages)
  assert {page.width for page in pages} == {contact_sheet.WIDTH}
  lines = [len(find_rows(page, COLOURS[0], 0)) for page in pages]
  assert sum(lines) == 15 * 2 * (SIDE // 2)
  assert sum(len(find_rows(page, COLOURS[0], 1)) for page in pages) == sum(lines) // 2


def test_a_row_higher_than_a_sheet_is_not_cut():
  tile = Tile(picture(COLOURS[0]), '0.5', 'a.png')
  (sheet,) = sheets([Row('', [tile] * (COLUMNS * 30))])
  assert len(find_rows(sheet, COLOURS[0], 0)) == 30 * SIDE
  assert [*sheets([])] == []


def test_any_text_can_be_drawn():
  odd = 'a\nb\udc80\x1b[31m\u202e\0日本'
  (sheet,) = sheets([Row(odd, [Tile(picture(COLOURS[0]), odd, odd)])])
  assert len(find_rows(sheet, COLOURS[0], 0)) == SIDE


def test_letters_that_the_font_lacks():
  assert drawable('Grüße – Ærø, 2 × „é“') == 'Grusse - Aero, 2 x „e“'
