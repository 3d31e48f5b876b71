"""Images from files, arrays and PIL: the pixels that training sees."""

import io

import numpy as np
import pytest
from PIL import Image
from util import make_pixels

from rahf.data import images
from rahf.data.inputs import read_pixels


def test_pixels_are_those_of_training():
  """JPEG turned by EXIF, transparency, 16 bits and grey: as decode_image does."""
  turned = io.BytesIO()
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(make_pixels()).save(turned, 'JPEG', exif=exif)
  transparent = io.BytesIO()
  rgba = np.dstack([make_pixels(), make_pixels()[..., 0]])
  Image.fromarray(rgba).save(transparent, 'PNG')
  deep = io.BytesIO()
  Image.fromarray(make_pixels()[..., 0].astype(np.uint16) * 257).save(deep, 'PNG')
  for file in (turned, transparent, deep):
    expected = images.decode_image(file.getvalue())
    np.testing.assert_array_equal(read_pixels(file.getvalue()), expected)
    np.testing.assert_array_equal(read_pixels(Image.open(file)), expected)
  assert images.decode_image(turned.getvalue()).shape == (40, 24, 3)
  np.testing.assert_array_equal(read_pixels(deep.getvalue())[..., 1], rgba[..., 3])


def test_pixels_of_16_bits():
  """Files and PIL images: their high byte."""
  levels = np.arange(0, 65536, 1024, np.uint16).reshape(8, 8)
  file = io.BytesIO()
  Image.fromarray(levels).save(file, 'PNG')
  for given in (file.getvalue(), Image.open(file), Image.fromarray(levels)):
    np.testing.assert_array_equal(read_pixels(given)[..., 1], levels >> 8)


def test_a_bucket_that_is_away(monkeypatch):
  def read_bytes(_):
    raise RuntimeError('no route to it')

  monkeypatch.setattr('etils.epath.gpath._GPath.read_bytes', read_bytes)
  with pytest.raises(
    images.ImageError, match=r'gs://a/b\.png cannot be read: no route'
  ):
    read_pixels('gs://a/b.png')


def test_images_in_the_home(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / 'a.png').write_bytes(images.encode_png(make_pixels()))
  np.testing.assert_array_equal(read_pixels('~/a.png'), make_pixels())
