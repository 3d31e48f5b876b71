import numpy as np
import pytest

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
