"""Review panels: every mark has the right place and colour."""

import numpy as np
import pytest
from PIL import ImageColor

from rahf.data import schema
from rahf.drawing import text_layout
from rahf.drawing.heatmap import overlay
from rahf.errors import InputError
from rahf.evaluation.score_example import ExampleLabels
from rahf.reports import panels

PROMPT = 'a yellow cat, "sitting" on a mat'
SCORES = dict.fromkeys(schema.SCORES, 0.5)


def labels(maps=None, scores=SCORES, keyword_labels=(1,) * 7):
  return ExampleLabels(
    [(maps or {}).get(name) for name in schema.MAPS],
    [scores[name] for name in schema.SCORES],
    keyword_labels,
  )


TOP = panels.MARGIN + 30 + panels.CAPTION  # of the image
ROW = panels.CAPTION + panels.TILE + panels.GAP
RIGHT = panels.MARGIN + panels.TILE + panels.GAP
BARS = np.s_[TOP : TOP + panels.TILE, RIGHT:]
WORDS = np.s_[TOP + 3 * ROW + 6 :]  # below the legend


def count(panel, colour, part):
  """Returns the number of pixels of a colour in a part of the panel."""
  return np.all(panel[part] == ImageColor.getrgb(colour), axis=-1).sum()


@pytest.mark.parametrize('shape', [(64, 64), (1024, 1024), (300, 900), (900, 64)])
def test_any_size_gives_the_same_layout(shape):
  image = np.full((*shape, 3), 200, np.uint8)
  maps = {'implausibility': np.zeros(shape, np.float32), 'misalignment': None}
  panel = panels.review_panel(image, PROMPT, labels(maps), labels(maps))
  assert panel.dtype == np.uint8
  assert panel.shape[1:] == (panels.WIDTH, 3)
  reference = panels.review_panel(image[:64, :64], PROMPT, labels(), labels())
  assert panel.shape == reference.shape


def test_overlay_leaves_zeros_grey_and_brightens_with_the_value():
  image = np.full((1, 11, 3), 128, np.uint8)
  heat = overlay(image, np.linspace(0, 1, 11)[None].astype(np.float32))
  assert len(set(heat[0, 0])) == 1  # grey: no heat at all
  luminance = heat[0] @ np.array([0.2126, 0.7152, 0.0722])
  # Low values are half transparent and may be as dark as the grey below.
  assert (np.diff(luminance[2:]) > 0).all()
  # 85 % of inferno's last colour (252, 255, 164) over the grey 70 + 128 / 2.
  np.testing.assert_array_equal(heat[0, -1], [234, 237, 160])


def test_heat_is_where_the_map_is_high():
  image = np.full((256, 256, 3), 128, np.uint8)
  heatmap = np.zeros((512, 512), np.float32)
  heatmap[:128, 384:] = 1  # a quarter of each side
  panel = panels.review_panel(
    image, PROMPT, labels({'implausibility': heatmap}), labels()
  )
  top, left = TOP + ROW, panels.MARGIN
  tile = panel[top : top + panels.TILE, left : left + panels.TILE].astype(int)
  coloured = np.ptp(tile, axis=-1) > 0
  assert coloured[:75, 245:].all()
  assert not coloured[85:].any()
  assert not coloured[:, :235].any()


def test_score_bars_are_as_long_as_the_scores():
  image = np.zeros((64, 64, 3), np.uint8)

  def area(value):
    scores = dict.fromkeys(schema.SCORES, value)
    panel = panels.review_panel(
      image, PROMPT, labels(), labels(scores=scores, keyword_labels=None)
    )
    return count(panel, panels.PREDICTED, BARS)

  assert area(np.nan) == 0
  quarter, half, full = map(area, (0.25, 0.5, 1.0))
  assert half / quarter == pytest.approx(2, rel=0.03)
  assert full / half == pytest.approx(2, rel=0.03)


def test_misaligned_words_are_marked_in_both_colours():
  image = np.zeros((64, 64, 3), np.uint8)
  clean = panels.review_panel(image, PROMPT, labels(), labels())

  def marks(truth, predicted):
    panel = panels.review_panel(
      image,
      PROMPT,
      labels(keyword_labels=truth),
      labels(keyword_labels=predicted),
    )
    return [
      count(panel, colour, WORDS) - count(clean, colour, WORDS)
      for colour in (panels.TRUE, panels.PREDICTED)
    ]

  ones = (1,) * 7
  short, long = (0, *ones[1:]), (1, 0, *ones[2:])
  assert marks(ones, ones) == [0, 0]
  true, predicted = marks(short, ones)
  assert true > 20
  assert predicted == 0
  true, predicted = marks(ones, short)
  assert true == 0
  assert predicted > 100
  # "yellow" is longer than "a".
  assert marks(long, long)[0] > 3 * marks(short, short)[0]


def test_words_are_coloured_by_probability():
  image = np.zeros((64, 64, 3), np.uint8)

  def blue(p):
    """Returns the lowest blue value of the word backgrounds."""
    prediction = labels()._replace(p_misaligned=(0.0, p, *[0.0] * 5))
    panel = panels.review_panel(image, PROMPT, labels(), prediction)
    part = panel[WORDS]
    return part[part[..., 0] == 255][:, 2].min()

  assert blue(0.0) == 255
  least = ImageColor.getrgb(panels.PREDICTED_LIGHT)[2]
  assert blue(1.0) == least
  assert abs(blue(0.5) - (255 + least) / 2) <= 1


def test_long_titles_are_truncated():
  image = np.zeros((64, 64, 3), np.uint8)
  scale = np.s_[:40, -200:]
  panel, long = (
    panels.review_panel(image, PROMPT, labels(), labels(), title=title)
    for title in ('short', 'long ' * 100)
  )
  np.testing.assert_array_equal(panel[scale], long[scale])
  assert not np.array_equal(panel, long)


def test_not_annotated_is_not_shown_as_zero():
  image = np.full((64, 64, 3), 90, np.uint8)
  zero = np.zeros((64, 64), np.float32)
  zeros = dict.fromkeys(schema.SCORES, 0.0)
  nothing = labels(dict.fromkeys(schema.MAPS), dict.fromkeys(schema.SCORES, np.nan))
  missing = panels.review_panel(image, PROMPT, nothing, labels())
  clean = panels.review_panel(
    image, PROMPT, labels(dict.fromkeys(schema.MAPS, zero), zeros), labels()
  )
  tile = np.s_[TOP + ROW : TOP + ROW + panels.TILE, : RIGHT - panels.GAP]
  assert missing[tile].mean() > clean[tile].mean() + 50
  assert not np.array_equal(missing[BARS], clean[BARS])


def test_long_prompts_wrap():
  image = np.zeros((64, 64, 3), np.uint8)
  none = labels(keyword_labels=None)
  heights = [
    panels.review_panel(image, prompt, none, none).shape[0]
    for prompt in ('', 'word ' * 8, 'word ' * 200, 'x' * 1000)
  ]
  assert heights[0] == heights[1] < min(heights[2:])
  placed = text_layout.wrap('ab ' * 100 + 'x' * 300, [], 400, text_layout.font(18))
  assert ''.join(piece.text for piece in placed) == 'ab ' * 100 + 'x' * 300
  font = text_layout.font(18)
  assert max(p.left + font.getlength(p.text.rstrip()) for p in placed) <= 400


def test_very_long_texts_are_truncated():
  """Quickly, and with labels for all words."""
  image = np.zeros((64, 64, 3), np.uint8)
  prompt = 'word ' * 20_000
  many = labels(keyword_labels=(1,) * 19_999 + (0,))
  panel = panels.review_panel(image, prompt, many, many, title='x' * 50_000)
  assert panel.shape[0] < 3_000


def test_wrong_number_of_probabilities_is_an_error():
  image = np.zeros((64, 64, 3), np.uint8)
  prediction = labels()._replace(p_misaligned=(0.5,))
  with pytest.raises(InputError, match='1 probabilities for a prompt of 7 words'):
    panels.review_panel(image, PROMPT, labels(), prediction)


def test_wrong_number_of_labels_is_an_error():
  image = np.zeros((64, 64, 3), np.uint8)
  with pytest.raises(InputError, match='3 keyword labels for a prompt of 7 words'):
    panels.review_panel(image, PROMPT, labels(keyword_labels=(1, 0, 1)), labels())
