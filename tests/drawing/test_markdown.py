"""Markdown tables of any text."""

from rahf.drawing.markdown import markdown_table


def test_cells_cannot_break_the_table():
  rows = [['a|b', '10'], ['c\nd', '20'], ['e\u202ef\x1b', '30']]
  assert markdown_table(['', 'n'], rows).splitlines() == [
    '|              |  n |',
    '| ------------ | -: |',
    r'| a\|b         | 10 |',
    '| c d          | 20 |',
    r'| e\u202ef\x1b | 30 |',
  ]
