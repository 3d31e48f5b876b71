"""Feedback: maps at the size of the image, overlays, words, JSON."""

import base64
import json

import jax
import numpy as np
import pytest
from util import make_pixels

import rahf
import tiny_directory
from rahf.data import schema
from rahf.data.images import codec
from rahf.drawing.heatmap import overlay
from rahf.errors import InputError

PROMPT = 'a red circle, a blue square'


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  folder = tmp_path_factory.mktemp('models')
  return rahf.load(tiny_directory.write(folder, threshold=0.25), batch_size=1)


def test_heatmaps_have_the_size_of_the_image(model):
  (found,) = model.score(make_pixels(height=96, width=64), PROMPT)
  for name in schema.MAPS:
    heatmap, small = found.heatmaps[name], found.small_maps[name]
    assert heatmap.dtype == np.float32
    assert heatmap.min() >= 0
    assert heatmap.max() <= 1
    expected = jax.image.resize(small, (96, 64), 'bilinear')
    np.testing.assert_allclose(heatmap, expected, atol=1e-5)


def test_overlay(model, tmp_path):
  pixels = make_pixels()
  path = tmp_path / 'a.png'
  path.write_bytes(codec.encode_png(pixels))
  (found,) = model.score(path, PROMPT)
  expected = overlay(pixels, found.heatmaps['misalignment'])
  np.testing.assert_array_equal(found.overlay('misalignment'), expected)
  with pytest.raises(InputError, match="'beauty' is not a map; there are implausib"):
    found.overlay('beauty')
  path.unlink()
  with pytest.raises(InputError, match=r'a\.png cannot be read'):
    found.overlay('misalignment')


def test_words_and_json(model):
  (found,) = model.score(make_pixels(), PROMPT)
  assert ' '.join(word for word, _ in found.keywords) == 'a red circle a blue square'
  assert all(0 <= p <= 1 for _, p in found.keywords)
  assert found.misaligned == [word for word, p in found.keywords if p > 0.25]
  assert not found.truncated
  stored = json.loads(json.dumps(found.to_dict(maps=True), allow_nan=False))
  assert stored['scores'] == found.scores
  assert (stored['height'], stored['width']) == (24, 40)
  assert [(k['word'], k['p_misaligned']) for k in stored['keywords']] == found.keywords
  for name, heatmap in found.heatmaps.items():
    decoded = codec.decode_map(base64.b64decode(stored['heatmaps'][name]))
    np.testing.assert_allclose(decoded, heatmap, atol=0.5 / 255 + 1e-6)
