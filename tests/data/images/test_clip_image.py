import math

import numpy as np
import pytest
from PIL import Image

from rahf.data.images import clip_image, codec
from rahf.data.images.clip_image import crop, crop_then_scale


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


@pytest.mark.parametrize(
  ('size', 'box'),  # Left, top, right, bottom.
  [
    ((40, 61), (10, 0, 50, 40)),
    ((61, 40), (0, 10, 40, 50)),
    ((20, 20), (0, 0, 20, 20)),
    ((24, 25), (0, 0, 24, 24)),
  ],
)
def test_the_square_of_cmmd_by_pillow(size, box):
  pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
  expected = Image.fromarray(pixels).crop(box).resize((24, 24), Image.BICUBIC)
  square = crop_then_scale(pixels, 24)
  np.testing.assert_array_equal(square, expected)
  # Not CLIP's own, which scales what is outside the square, too.
  same = np.array_equal(square, crop(pixels, 24, 'openai'))
  assert same == (size[0] == size[1] or size == (24, 25))


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


@pytest.mark.parametrize('source', ['openai', 'huggingface'])
@pytest.mark.parametrize('size', [(60, 44), (24, 24), (24, 27), (20, 90), (13, 7)])
def test_cropping_floats_agrees(size, source):
  """On smooth images: there is nothing to clip, and PIL rounds after each axis."""
  y, x = np.mgrid[: size[0], : size[1]]
  pixels = np.stack([100 + 50 * np.sin(x / 9), 100 + y, 90 + 40 * np.cos(y / 8)], -1)
  pixels = np.round(pixels).astype(np.uint8)
  found = clip_image.crop_floats(pixels[None].astype(np.float32) / 255, 24, source)
  np.testing.assert_allclose(found[0], crop(pixels, 24, source) / 255, atol=1.01 / 255)
