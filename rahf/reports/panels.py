"""Draws an example's annotation and prediction side by side."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageColor, ImageDraw

from rahf.data import label_words, schema
from rahf.drawing.heatmap import overlay
from rahf.drawing.text_layout import font, truncate, wrap
from rahf.errors import InputError
from rahf.evaluation.score_example import ExampleLabels

# TensorBoard shows pictures 340 pixels wide by default: half of WIDTH.
TILE, GAP, MARGIN = 320, 16, 12
WIDTH = 2 * TILE + GAP + 2 * MARGIN
CAPTION = 34
MAX_PROMPT = 1500  # characters
TEXT, SMALL, WORDS = 21, 19, 25  # font sizes

PAPER, SHADE, TRACK = '#ffffff', '#f1f3f5', '#e4e7eb'
INK, FAINT = '#1f2933', '#66727f'
# Colours of annotators and model; the light one is the background of words.
TRUE, PREDICTED, PREDICTED_LIGHT = '#1c5fc4', '#d95f02', '#ffb46b'


def review_panel(
  image: UInt8[np.ndarray, 'h w 3'],
  prompt: str,
  truth: ExampleLabels,
  prediction: ExampleLabels,
  *,
  title: str = '',
) -> UInt8[np.ndarray, 'H W 3']:
  """Draws image, heatmaps, scores and prompt of one example.

  Args:
    image: RGB, of any size.
    prompt: the text that the image was made from; truncated if very long.
    truth: the annotation.
    prediction: the model's output.
    title: a line above the picture, such as the uid.

  Returns:
    An RGB picture, WIDTH pixels wide; its height grows with the prompt.

  Raises:
    InputError: the number of keyword labels or probabilities is not that of words.
  """
  tiles = _tiles(image, truth, prediction)
  scores = _scores(truth.scores, prediction.scores)
  text = _prompt(prompt, truth, prediction)
  tiles_top = MARGIN + 30
  text_top = tiles_top + tiles.height + GAP
  panel = Image.new('RGB', (WIDTH, text_top + text.height + MARGIN), PAPER)
  scale = _scale()
  space = WIDTH - 2 * MARGIN - scale.width
  draw = ImageDraw.Draw(panel)
  draw.text(
    (MARGIN, MARGIN - 4), truncate(title, space, font(SMALL)), FAINT, font(SMALL)
  )
  panel.paste(scale, (WIDTH - MARGIN - scale.width, MARGIN - 4))
  panel.paste(tiles, (MARGIN, tiles_top))
  panel.paste(scores, (MARGIN + TILE + GAP, tiles_top))
  panel.paste(text, (MARGIN, text_top))
  return np.asarray(panel)


def _tiles(
  image: np.ndarray, truth: ExampleLabels, prediction: ExampleLabels
) -> Image.Image:
  """Draws the image, and below it pairs of heatmaps, each with a caption."""
  height = CAPTION + TILE + GAP
  block = Image.new('RGB', (WIDTH - 2 * MARGIN, 3 * height - GAP), PAPER)
  scale = TILE / max(image.shape[:2])
  size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
  small = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
  _paste_tile(block, 0, 0, 'image', '', INK, small)
  sides = (('annotated', truth, TRUE), ('predicted', prediction, PREDICTED))
  for index, name in enumerate(schema.MAPS):
    for column, (who, labels, colour) in enumerate(sides):
      heatmap = labels.maps[index]
      peak = '' if heatmap is None else f'max {np.max(heatmap):.2f}'
      left, top = column * (TILE + GAP), (1 + index) * height
      # The left caption names the map for both.
      text = f'{name}, {who}' if column == 0 else who
      tile = _heat_tile(small, heatmap, who)
      _paste_tile(block, left, top, text, peak, colour, tile)
  return block


def _paste_tile(
  block: Image.Image,
  left: int,
  top: int,
  text: str,
  note: str,
  colour: str,
  tile: Image.Image,
) -> None:
  draw = ImageDraw.Draw(block)
  baseline = top + CAPTION - 10
  draw.text((left, baseline), text, colour, font(20), anchor='ls')
  draw.text((left + TILE, baseline), note, FAINT, font(17), anchor='rs')
  top += CAPTION
  draw.rectangle((left, top, left + TILE - 1, top + TILE - 1), SHADE)
  corner = left + (TILE - tile.width) // 2, top + (TILE - tile.height) // 2
  block.paste(tile, corner)


def _heat_tile(image: Image.Image, heatmap: np.ndarray | None, who: str) -> Image.Image:
  if heatmap is None:
    tile = Image.blend(image, Image.new('RGB', image.size, SHADE), 0.85)
    centre = (image.width / 2, image.height / 2)
    ImageDraw.Draw(tile).text(centre, f'not {who}', FAINT, font(TEXT), anchor='mm')
    return tile
  resized = Image.fromarray(np.asarray(heatmap, np.float32)).resize(
    image.size, Image.Resampling.BILINEAR
  )
  return Image.fromarray(overlay(np.asarray(image), np.asarray(resized)))


def _scale() -> Image.Image:
  """Draws the heat colours from 0 to 1, as they look over mid-grey."""
  height, width, ends = 16, 160, 20
  ramp = np.tile(np.linspace(0, 1, width), (height, 1))
  colours = overlay(np.full((height, width, 3), 128, np.uint8), ramp)
  block = Image.new('RGB', (width + 2 * ends, 24), PAPER)
  block.paste(Image.fromarray(colours), (ends, 4))
  draw = ImageDraw.Draw(block)
  draw.text((ends - 8, 12), '0', FAINT, font(SMALL), anchor='rm')
  draw.text((ends + width + 8, 12), '1', FAINT, font(SMALL), anchor='lm')
  return block


def _scores(truth: Sequence[float], prediction: Sequence[float | None]) -> Image.Image:
  """Draws a pair of bars for each score, on a track from 0 to 1."""
  row, bar = TILE // len(schema.SCORES), 19
  block = Image.new('RGB', (TILE, CAPTION + TILE), PAPER)
  draw = ImageDraw.Draw(block)
  sides = (('annotated', truth, TRUE), ('predicted', prediction, PREDICTED))
  _legend(draw, 0, 6, *((who, 'bar', colour) for who, _, colour in sides))
  right = TILE - 56
  for i, name in enumerate(schema.SCORES):
    top = CAPTION + i * row
    draw.text((0, top + 24), name, INK, font(TEXT), anchor='ls')
    for j, (who, scores, colour) in enumerate(sides):
      value, y = scores[i], top + 32 + j * (bar + 2)
      draw.rectangle((0, y, right, y + bar - 1), TRACK)
      middle = y + bar / 2
      if value is None or math.isnan(value):
        draw.text((6, middle), f'not {who}', FAINT, font(17), anchor='lm')
        continue
      draw.rectangle((0, y, np.clip(value, 0, 1) * right, y + bar - 1), colour)
      shown = f'{value:.2f}'
      draw.text((TILE, middle), shown, colour, font(SMALL), anchor='rm')
  return block


def _prompt(
  prompt: str, truth: ExampleLabels, prediction: ExampleLabels
) -> Image.Image:
  """Draws the wrapped prompt with its misaligned words marked."""
  heading, line = 40, 40
  spans = label_words.label_spans(prompt)
  true, marked = (
    _misaligned(side.keyword_labels, spans) for side in (truth, prediction)
  )
  shades = prediction.p_misaligned
  if shades is not None:
    _check_length(shades, 'probabilities', spans)
  if len(prompt) > MAX_PROMPT:
    prompt = f'{prompt[:MAX_PROMPT]}…'
    spans = [span for span in spans if span[1] <= MAX_PROMPT]
  placed = wrap(prompt, spans, WIDTH - 2 * MARGIN, font(WORDS))
  lines = 1 + max((piece.line for piece in placed), default=0)
  block = Image.new('RGB', (WIDTH - 2 * MARGIN, heading + line * lines + 4), PAPER)
  draw = ImageDraw.Draw(block)
  entries = [
    ('not annotated' if truth.keyword_labels is None else 'annotated', 'line', TRUE),
    (
      'not decoded' if prediction.keyword_labels is None else 'decoded',
      'frame',
      PREDICTED,
    ),
  ]
  if shades is not None:
    entries.append(('p, from 0 to 1', 'shade', PREDICTED_LIGHT))
  draw.text((0, 22), 'misaligned', INK, font(TEXT), anchor='ls')
  _legend(draw, 128, 2, *entries)
  for piece in placed:
    top = heading + piece.line * line
    box = (
      piece.left - 2,
      top,
      piece.left + font(WORDS).getlength(piece.text) + 1,
      top + 31,
    )
    if shades is not None and piece.word >= 0:
      draw.rectangle(box, _shade(shades[piece.word]))
    if piece.word in marked:
      draw.rectangle(box, outline=PREDICTED, width=2)
    draw.text((piece.left, top + 2), piece.text, INK, font(WORDS))
    if piece.word in true:
      draw.rectangle((box[0], box[3] + 1, box[2], box[3] + 5), TRUE)
  return block


def _shade(p: float) -> tuple[int, ...]:
  """Returns the background of a word whose probability of misalignment is p."""
  paper, light = (np.array(ImageColor.getrgb(c)) for c in (PAPER, PREDICTED_LIGHT))
  return tuple(np.round((1 - p) * paper + p * light).astype(int).tolist())


def _misaligned(labels: Sequence[int] | None, spans: Sequence) -> set[int]:
  """Returns the numbers of the words whose label is 0."""
  if labels is None:
    return set()
  _check_length(labels, 'keyword labels', spans)
  return {word for word, label in enumerate(labels) if label == 0}


def _check_length(values: Sequence, what: str, spans: Sequence) -> None:
  if len(values) != len(spans):
    raise InputError(
      f'{len(values)} {what} for a prompt of {len(spans)} words; pass one for each of '
      'words.label_spans(prompt), or None'
    )


def _legend(
  draw: ImageDraw.ImageDraw, left: float, top: int, *entries: tuple[str, str, str]
) -> None:
  """Draws entries of (text, kind of swatch, colour) in one line."""
  for text, kind, colour in entries:
    box = (left, top, left + 20, top + 20)
    if kind == 'bar':
      draw.rectangle(box, colour)
    elif kind == 'line':
      draw.rectangle((left, top + 16, left + 20, top + 20), colour)
    elif kind == 'frame':
      draw.rectangle(box, outline=colour, width=2)
    else:
      for x in range(21):
        draw.line((left + x, top, left + x, top + 20), _shade(x / 20))
    draw.text((left + 28, top + 18), text, FAINT, font(SMALL), anchor='ls')
    left += 28 + font(SMALL).getlength(text) + 24
