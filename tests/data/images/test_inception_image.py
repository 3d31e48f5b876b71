"""Resizing for FID against pytorch-fid and clean-fid."""

import json
import pathlib

import numpy as np
import pytest

from golden_noise import noise
from rahf.data.images.inception_image import squash
from rahf.errors import InputError

GOLDEN = pathlib.Path(__file__).parents[2] / 'goldens' / 'inception.json'


@pytest.mark.parametrize('convention', ['pytorch_fid', 'clean_fid'])
def test_pixels_of_the_other_codes(convention):
  golden = json.loads(GOLDEN.read_text())['resized'][convention]
  images = np.round(255 * (noise(0, (2, 3, 67, 91)) + 1) / 2).astype(np.uint8)
  found = np.stack([squash(p, convention) for p in images.transpose(0, 2, 3, 1)])
  assert found.shape == (2, 299, 299, 3)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found.mean((1, 2)), golden['mean'], atol=1e-6)
  pixels = found[:, golden['rows']][:, :, golden['columns']]
  np.testing.assert_allclose(pixels, golden['pixels'], atol=1e-6)


@pytest.mark.parametrize('convention', ['pytorch_fid', 'clean_fid'])
def test_images_of_the_size_are_only_scaled(convention):
  pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
  expected = pixels / 127.5 - 1 if convention == 'pytorch_fid' else pixels / 128 - 1
  np.testing.assert_allclose(squash(pixels, convention, 9), expected, atol=1e-6)


def test_only_one_of_them_has_antialiasing():
  """Stripes of one pixel, 8 in a target pixel, are averaged or picked out."""
  stripes = np.zeros((64, 64, 3), np.uint8)
  stripes[:, ::8] = stripes[:, 3::8] = 255
  picked = squash(stripes, 'pytorch_fid', 8)
  np.testing.assert_allclose(picked, 0, atol=1e-6)  # Between 255 and 0.
  averaged = squash(stripes, 'clean_fid', 8)
  np.testing.assert_allclose(averaged[:, 2:6], 2 * 255 / 8 / 128 - 1, atol=0.02)


def test_an_unknown_convention():
  with pytest.raises(InputError, match=r"'tf' is not a way .* pytorch_fid, clean_fid"):
    squash(np.zeros((2, 2, 3), np.uint8), 'tf')
