"""Inpainting with a Muse of random parameters; `tests/tasks/test_muse.py` draws."""

import numpy as np
import pytest
from etils import epath

import tiny_muse
from rahf import config as config_lib
from rahf.data.clip_tokenizer import ClipTokenizer, train_vocabulary
from rahf.errors import InputError
from rahf.inference.generator import Generator
from rahf.inference.image_generator import InpaintRequest

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)


@pytest.fixture(scope='module')
def generator():
  """Draws two images at once."""
  config = tiny_muse.get_config('generator')
  sizes = config_lib.muse_config(config)
  params = tiny_muse.random_params(config)
  tokenizer = ClipTokenizer(train_vocabulary(tiny_muse.PROMPTS, 520), 'huggingface', 24)
  sampling = config_lib.sampling_config(config)
  folder = epath.Path('.')
  return Generator(sizes, sampling, params, tokenizer, folder, 'tiny', rows=2)


def requests():
  """A single pixel, a thin line, and the left half."""
  masks = np.zeros((3, 64, 64), bool)
  masks[0, 9, 30] = masks[1, 40:42] = masks[2, :, :32] = True
  return [
    InpaintRequest(prompt, 7, number, image, mask)
    for number, (prompt, image, mask) in enumerate(
      zip(tiny_muse.PROMPTS, IMAGES, masks, strict=True)
    )
  ]


def test_outside_of_the_mask_nothing_changes(generator):
  found = [*generator.inpaint(requests())]
  for one, image in zip(requests(), found, strict=True):
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image[~one.mask], one.image[~one.mask])
    assert (image[one.mask] != one.image[one.mask]).mean() > 0.9


def test_an_image_does_not_depend_on_its_batch(generator):
  together = [*generator.inpaint(requests())]
  for one, image in zip(requests(), together, strict=True):
    (alone,) = generator.inpaint([one])
    np.testing.assert_array_equal(alone, image)
  half = requests()[2]
  others = [half._replace(seed=8), half._replace(number=5)]
  others += [half._replace(prompt='a cat'), half._replace(negative='a cat')]
  for image in generator.inpaint(others):
    assert (image != together[2]).any()


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'mask': np.zeros((64, 64), bool)}, 'the mask is empty'),
    ({'mask': np.ones((64, 64), bool)}, 'the mask covers the whole image'),
    ({'mask': np.eye(32, dtype=bool)}, r'mask is bool \[32, 32\]; .* bool \[64, 64\]'),
    ({'mask': np.eye(64)}, r'the mask is float64 \[64, 64\]; give bool'),
    ({'mask': None}, 'the mask is of the type NoneType'),
    ({'image': IMAGES[0] / 255}, r'is float64 \[64, 64, 3\]; give uint8'),
    ({'image': IMAGES[0, :, :, 0]}, r'is uint8 \[64, 64\]; give uint8'),
    (
      {'image': IMAGES[0, :32], 'mask': np.eye(32, 64, dtype=bool)},
      '64 x 32 px, but this model takes 64 x 64 px',
    ),
    ({'seed': -1}, 'seed = -1'),
    ({'prompt': ''}, "prompt is ''"),
  ],
)
def test_requests_that_are_refused(generator, change, message):
  with pytest.raises(InputError, match=message):
    next(generator.inpaint([requests()[0]._replace(**change)]))
