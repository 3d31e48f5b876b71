import math

import numpy as np
import pytest

from rahf.data.images import clip_image, codec
from rahf.data.images.clip_image import crop


@pytest.mark.parametrize(
  ('size', 'openai', 'huggingface'),
  [
    ((24, 24), (0, 0), (0, 0)),
    ((24, 25), (0, 0), (0, 0)),
    ((24, 27), (0, 2), (0, 1)),
    ((24, 29), (0, 2), (0, 2)),
    ((31, 24), (4, 0), (3, 0)),
  ],
)
def test_where_the_square_begins(size, openai, huggingface):
  """OpenAI's as torchvision's CenterCrop puts it (0.29.1)."""
  pixels = np.zeros((*size, 3), np.uint8)
  pixels[..., 0], pixels[..., 1] = np.mgrid[: size[0], : size[1]]
  for source, expected in (('openai', openai), ('huggingface', huggingface)):
    square = crop(pixels, 24, source)
    assert square.shape == (24, 24, 3)
    assert tuple(square[0, 0, :2]) == expected


def test_a_map_is_put_back_into_its_image():
  heat = np.arange(16, dtype=np.float32).reshape(4, 4) / 16
  whole = clip_image.uncrop(heat, 4, 9)
  assert whole.shape == (4, 9)
  np.testing.assert_array_equal(whole[:, 2:6], heat)
  assert np.all(whole[:, [0, 1, 6, 7, 8]] == 0)
  tall = clip_image.uncrop(np.ones((4, 4)), 30, 10)
  assert np.all(tall[10:20] == 1)
  assert np.all(tall[:10] == 0)
  assert np.all(tall[20:] == 0)


@pytest.mark.parametrize('shape', [(7, 12), (12, 7), (1, 1)])
def test_a_box_is_cut_out(shape):
  pixels = np.arange(math.prod(shape) * 3, dtype=np.uint8).reshape(*shape, 3)
  np.testing.assert_array_equal(codec.cut(pixels, codec.WHOLE_IMAGE), pixels)
  part = codec.cut(pixels, (0.25, 0.5, 0.5, 0.25))
  assert part.size
  top, left = round(0.25 * shape[0]), min(round(0.5 * shape[1]), shape[1] - 1)
  np.testing.assert_array_equal(part[0, 0], pixels[top, left])
