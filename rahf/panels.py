"""One picture of an example: annotation and prediction side by side.

The labels are drawn in Pillow's built-in font, which has Latin letters only; other
characters of a prompt show as boxes.
"""

import bisect
import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from rahf.data import schema, words
from rahf.errors import InputError

TILE, GAP, MARGIN = 256, 12, 20
WIDTH = 5 * TILE + 4 * GAP + 2 * MARGIN
SCORES_WIDTH = 2 * TILE

PAPER, SHADE, TRACK = '#ffffff', '#f1f3f5', '#e4e7eb'
INK, FAINT = '#1f2933', '#7b8794'
# The annotators' colour and the model's; the light one lies behind words.
TRUE, PREDICTED, PREDICTED_LIGHT = '#1c5fc4', '#e8700a', '#ffdcb8'

# Ten equidistant colours of matplotlib's inferno: lightness grows with the value.
INFERNO = np.array(
  [
    (0, 0, 4),
    (27, 12, 65),
    (74, 12, 107),
    (120, 28, 109),
    (165, 44, 96),
    (207, 68, 70),
    (237, 105, 37),
    (251, 155, 6),
    (247, 209, 61),
    (252, 255, 164),
  ],
  np.float32,
)


class Labels(NamedTuple):
  """What annotators said of an image, or what a model predicts.

  Attributes:
    maps: values in [0, 1], of any size, by the names of `schema.MAPS`.
    scores: values in [0, 1] by the names of `schema.SCORES`.
    keyword_labels: 1 aligned, 0 misaligned for each of `words.label_spans`.

  A missing name, None or a NaN score is shown as not annotated or not predicted.
  """

  maps: Mapping[str, Float[np.ndarray, 'h w'] | None]
  scores: Mapping[str, float]
  keyword_labels: Sequence[int] | None


def review_panel(
  image: UInt8[np.ndarray, 'h w 3'],
  prompt: str,
  truth: Labels,
  prediction: Labels,
  *,
  title: str = '',
) -> UInt8[np.ndarray, 'H W 3']:
  """Draws image, heatmaps, scores and prompt of one example.

  Args:
    image: RGB, of any size.
    prompt: the text that the image was made from.
    truth: the annotation.
    prediction: the model's output.
    title: a line above the picture, for example the example's uid.

  Returns:
    An RGB picture WIDTH pixels wide; the height grows with the prompt.

  Raises:
    InputError: the number of keyword labels is not the number of words.
  """
  tiles = _tiles(image, truth, prediction)
  scores = _scores(truth.scores, prediction.scores)
  text = _prompt(prompt, truth.keyword_labels, prediction.keyword_labels)
  tiles_top = MARGIN + 30
  bottom_top = tiles_top + tiles.height + GAP
  height = bottom_top + max(scores.height, text.height) + MARGIN
  panel = Image.new('RGB', (WIDTH, height), PAPER)
  ImageDraw.Draw(panel).text((MARGIN, MARGIN - 4), title, FAINT, _font(15))
  scale = _scale()
  panel.paste(scale, (WIDTH - MARGIN - scale.width, MARGIN - 4))
  panel.paste(tiles, (MARGIN, tiles_top))
  panel.paste(scores, (MARGIN, bottom_top))
  panel.paste(text, (WIDTH - MARGIN - text.width, bottom_top))
  return np.asarray(panel)


def overlay(
  image: UInt8[np.ndarray, 'h w 3'], heatmap: Float[np.ndarray, 'h w']
) -> UInt8[np.ndarray, 'h w 3']:
  """Lays a heatmap in [0, 1] over the image in grey; more opaque where higher."""
  grey = np.asarray(Image.fromarray(image).convert('L'), np.float32)[..., None]
  value = np.clip(heatmap, 0, 1)
  # The darkest colours would read as shade in the image.
  position = 0.3 + 0.7 * value
  knots = np.linspace(0, 1, len(INFERNO))
  heat = np.stack([np.interp(position, knots, channel) for channel in INFERNO.T], -1)
  alpha = 0.85 * np.sqrt(value)[..., None]
  return np.round((1 - alpha) * (70 + 0.5 * grey) + alpha * heat).astype(np.uint8)


def _tiles(image: np.ndarray, truth: Labels, prediction: Labels) -> Image.Image:
  """The image and its four heatmaps in a row, each with a caption."""
  caption = 26
  row = Image.new('RGB', (WIDTH - 2 * MARGIN, caption + TILE), PAPER)
  draw = ImageDraw.Draw(row)
  scale = TILE / max(image.shape[:2])
  width, height = (max(1, round(side * scale)) for side in image.shape[1::-1])
  small = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
  cells = [('image', '', INK, small)]
  for name in schema.MAPS:
    for who, labels, colour in (
      ('annotated', truth, TRUE),
      ('predicted', prediction, PREDICTED),
    ):
      heatmap = labels.maps.get(name)
      peak = '' if heatmap is None else f'max {np.max(heatmap):.2f}'
      cells.append((f'{name}, {who}', peak, colour, _heat_tile(small, heatmap, who)))
  for i, (text, note, colour, tile) in enumerate(cells):
    left = i * (TILE + GAP)
    draw.text((left, 2), text, colour, _font(15))
    draw.text((left + TILE, 4), note, FAINT, _font(13), anchor='ra')
    draw.rectangle((left, caption, left + TILE - 1, caption + TILE - 1), SHADE)
    corner = (left + (TILE - width) // 2, caption + (TILE - height) // 2)
    row.paste(tile, corner)
  return row


def _heat_tile(image: Image.Image, heatmap: np.ndarray | None, who: str) -> Image.Image:
  if heatmap is None:
    tile = Image.blend(image, Image.new('RGB', image.size, SHADE), 0.85)
    centre = (image.width / 2, image.height / 2)
    ImageDraw.Draw(tile).text(centre, f'not {who}', FAINT, _font(16), anchor='mm')
    return tile
  resized = Image.fromarray(np.asarray(heatmap, np.float32)).resize(
    image.size, Image.Resampling.BILINEAR
  )
  return Image.fromarray(overlay(np.asarray(image), np.asarray(resized)))


def _scale() -> Image.Image:
  """The heat colours from 0 to 1, as they look over mid-grey."""
  height, width, ends = 12, 160, 18
  ramp = np.tile(np.linspace(0, 1, width), (height, 1))
  colours = overlay(np.full((height, width, 3), 128, np.uint8), ramp)
  block = Image.new('RGB', (width + 2 * ends, 20), PAPER)
  block.paste(Image.fromarray(colours), (ends, 3))
  draw = ImageDraw.Draw(block)
  draw.text((ends - 8, 9), '0', FAINT, _font(13), anchor='rm')
  draw.text((ends + width + 8, 9), '1', FAINT, _font(13), anchor='lm')
  return block


def _scores(truth: Mapping[str, float], prediction: Mapping[str, float]) -> Image.Image:
  """A pair of bars for each score, over a track from 0 to 1."""
  heading, row, bar = 34, 38, 11
  block = Image.new('RGB', (SCORES_WIDTH, heading + row * len(schema.SCORES)), PAPER)
  draw = ImageDraw.Draw(block)
  left, right = 110, SCORES_WIDTH - 60
  draw.text((0, 4), 'scores', INK, _font(15))
  sides = (('annotated', truth, TRUE), ('predicted', prediction, PREDICTED))
  _legend(draw, left, *((who, 9, colour) for who, _, colour in sides))
  for i, name in enumerate(schema.SCORES):
    top = heading + i * row
    draw.text((0, top + bar), name, INK, _font(15), anchor='lm')
    for j, (who, scores, colour) in enumerate(sides):
      value, y = scores.get(name, math.nan), top + j * (bar + 2)
      draw.rectangle((left, y, right, y + bar - 1), TRACK)
      middle = y + bar / 2
      if math.isnan(value):
        draw.text((left + 6, middle), f'not {who}', FAINT, _font(11), anchor='lm')
        continue
      end = left + np.clip(value, 0, 1) * (right - left)
      draw.rectangle((left, y, end, y + bar - 1), colour)
      draw.text((right + 10, middle), f'{value:.2f}', colour, _font(13), anchor='lm')
  return block


def _prompt(
  prompt: str, truth: Sequence[int] | None, prediction: Sequence[int] | None
) -> Image.Image:
  """The prompt with its misaligned words marked, wrapped to the space left."""
  heading, line, size = 34, 30, 18
  width = WIDTH - 2 * MARGIN - SCORES_WIDTH - 2 * GAP
  spans = words.label_spans(prompt)
  placed = _place(prompt, spans, width, _font(size))
  lines = 1 + max((piece.line for piece in placed), default=0)
  block = Image.new('RGB', (width, heading + line * lines + 4), PAPER)
  draw = ImageDraw.Draw(block)
  draw.text((0, 4), 'prompt', INK, _font(15))
  _legend(
    draw,
    70,
    ('misaligned, annotated' if truth is not None else 'not annotated', 17, TRUE),
    (
      'misaligned, predicted' if prediction is not None else 'not predicted',
      6,
      PREDICTED_LIGHT,
    ),
  )
  true, predicted = (_misaligned(labels, spans) for labels in (truth, prediction))
  for piece in placed:
    top = heading + piece.line * line
    end = piece.left + _font(size).getlength(piece.text)
    if piece.word in predicted:
      draw.rectangle((piece.left - 2, top, end + 1, top + 23), PREDICTED_LIGHT)
    draw.text((piece.left, top + 2), piece.text, INK, _font(size))
    if piece.word in true:
      draw.rectangle((piece.left - 2, top + 24, end + 1, top + 26), TRUE)
  return block


def _misaligned(labels: Sequence[int] | None, spans: Sequence) -> set[int]:
  """Returns the numbers of the words whose label is 0."""
  if labels is None:
    return set()
  if len(labels) != len(spans):
    raise InputError(
      f'{len(labels)} keyword labels for a prompt of {len(spans)} words; pass one for '
      'each of words.label_spans(prompt), or None'
    )
  return {word for word, label in enumerate(labels) if label == 0}


class _Piece(NamedTuple):
  """Text set at `left` pixels of a line; `word` is -1 between words."""

  text: str
  word: int
  line: int
  left: float


def _place(
  prompt: str,
  spans: Sequence[tuple[int, int]],
  width: int,
  font: ImageFont.FreeTypeFont,
) -> list[_Piece]:
  """Breaks the prompt into lines before words, and within words too long for one."""
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
        # At least one character a line, or this would not end.
        fits = max(fits, 1)
        pieces.append(_Piece(text[:fits], number, line, left))
        left += font.getlength(text[:fits])
        text = text[fits:]
        if text:
          line, left = line + 1, 2.0
    position = end
  return pieces


def _legend(
  draw: ImageDraw.ImageDraw, left: int, *entries: tuple[str, int, str]
) -> None:
  """Draws entries of (text, top of the swatch, its colour) in one line."""
  for text, top, colour in entries:
    draw.rectangle((left, top, left + 17, 19), colour)
    draw.text((left + 25, 5), text, FAINT, _font(13))
    left += 25 + _font(13).getlength(text) + 24


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
  return ImageFont.load_default(size)
