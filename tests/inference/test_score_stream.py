"""Streams of rows: order, rows without images, several images, memory."""

import numpy as np
from tqdm import tqdm

from rahf.inference.feedback import Feedback
from rahf.inference.score_stream import Prepared, prepare_image, score_stream
from rahf.inference.scorer import Example


class Levels:
  """Scores an image by its first pixel, plus a constant; batches are of four."""

  buckets = (4,)

  def __init__(self, offset: int):
    self.offset, self.sizes = offset, []

  def prepare(self, pixels, prompt):
    return Example(pixels, prompt, *pixels.shape[:2], pixels, prompt)

  def score_examples(self, examples, *, scores_only):
    assert scores_only
    self.sizes.append(len(examples))
    levels = [int(one.pixels[0, 0, 0]) + self.offset for one in examples]
    return [Feedback('a', (1, 1), {'level': one}, False, None) for one in levels]


def test_rows_of_several_images_come_back_in_order():
  scorers = {'a': Levels(0), 'b': Levels(100)}

  def prepare(row: int) -> Prepared[int]:
    if row % 3 == 2:  # Cannot be scored.
      return Prepared(row)
    pixels = [np.full((2, 2, 3), row + shift, np.uint8) for shift in (0, 50)]
    return Prepared(row, [prepare_image(scorers, one, 'a') for one in pixels])

  bar = tqdm(total=8, disable=True)
  stream = score_stream(
    scorers, range(8), prepare, bar, images_per_row=2, scores_only=True
  )
  found = [
    (row, [[one.scores['level'] for one in image.values()] for image in images])
    for row, images in stream
  ]
  assert found == [
    (row, [] if row % 3 == 2 else [[row, row + 100], [row + 50, row + 150]])
    for row in range(8)
  ]
  assert max(scorers['a'].sizes) <= 4
