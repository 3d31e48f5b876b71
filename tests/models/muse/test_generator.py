"""Text to image, image to image and inpainting, with a tiny model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rahf.errors import InputError
from rahf.models import muse
from rahf.models.clip import TowerConfig
from rahf.models.muse.autoencoder import AutoencoderConfig
from rahf.models.muse.generator import encode, guided_logits
from rahf.models.muse.text import TextConfig, fill_up
from rahf.models.muse.transformer import TransformerConfig
from rahf.runtime import sharding

CONFIG = muse.MuseConfig(
  AutoencoderConfig((8, 8), 1, 2, 4, levels=(4, 4, 2), patch=2),
  TransformerConfig(
    **{'width': 16, 'layers': 1, 'heads': 2, 'mlp': 16, 'embedding': 8},
    **{'channels': 8, 'conv_layers': 1, 'conv_heads': 2, 'vocab_size': 34},
    **{'codebook_size': 32, 'text_width': 8, 'pooled_width': 8, 'frequencies': 2},
  ),
  TextConfig(TowerConfig(8, 2, 2, 8), 6, 20, 8),
  image_size=16,
)
KEYS = jax.random.split(jax.random.key(1), 3)
IMAGE = np.random.default_rng(0).random((3, 16, 16, 3), np.float32)
SAMPLING = muse.SamplingConfig(steps=3, guidance=2.0)


@pytest.fixture(scope='module')
def params():
  """Of logits that differ enough to sample from."""
  params = nn.unbox(
    jax.jit(lambda key: muse.init_params(CONFIG, key))(jax.random.key(0))
  )
  params['transformer']['logits']['kernel'] *= 50
  return params


def prompt(count=3):
  text = jnp.array([[18, 1, 2, 19, 19, 19], [18, 7, 19, 19, 19, 19]])
  return muse.Prompt(
    text[jnp.arange(count) % 2], text[:1] * 0 + 19, muse.micro_conditions(count, 16, 16)
  )


def test_an_image_depends_on_its_prompt_and_key_alone(params):
  whole = muse.generate(CONFIG, params, prompt(), KEYS, sampling=SAMPLING)
  assert whole.image.shape == (3, 16, 16, 3)
  assert 0 <= whole.image.min() <= whole.image.max() <= 1
  alone = muse.generate(CONFIG, params, prompt(1), KEYS[2:], sampling=SAMPLING)
  np.testing.assert_array_equal(alone.tokens[0], whole.tokens[2])
  np.testing.assert_allclose(alone.image[0], whole.image[2], atol=1e-5)
  # The same prompt, another key.
  assert (whole.tokens[0] != whole.tokens[2]).any()


def test_sharp_sampling_takes_the_most_probable_codes(params):
  """At most as much less probable as noise of Gumbel(0, 1) makes up for."""
  sharp = dataclasses.replace(SAMPLING, steps=1, sharpness=1000.0)
  same = muse.Prompt(*(part[:1] for part in prompt()[:3]))
  masked = jnp.full((1, 4, 4), CONFIG.transformer.mask_id)
  logits = guided_logits(CONFIG, params, same, SAMPLING)(masked)
  for key in KEYS:
    found = muse.generate(CONFIG, params, same, key[None], sampling=sharp)
    chosen = jnp.take_along_axis(logits, found.tokens[..., None], -1)[..., 0]
    assert float((logits.max(-1) - chosen).max()) < 20 / 1000


def test_full_strength_leaves_nothing_of_the_image(params):
  new = muse.generate(CONFIG, params, prompt(), KEYS, sampling=SAMPLING)
  found = muse.image_to_image(
    CONFIG, params, prompt(), IMAGE, KEYS, strength=1.0, sampling=SAMPLING
  )
  np.testing.assert_array_equal(found.tokens, new.tokens)


def test_less_strength_leaves_a_part(params):
  sampling = dataclasses.replace(SAMPLING, steps=4)
  found = muse.image_to_image(
    CONFIG, params, prompt(), IMAGE, KEYS, strength=0.25, sampling=sampling
  )
  kept = (found.tokens == encode(CONFIG, params, jnp.asarray(IMAGE))).mean()
  # cos(3 pi / 8) = .38 of the 48 tokens are drawn anew.
  assert 0.3 < kept < 0.9


def test_inpainting_leaves_the_rest_bit_for_bit(params):
  mask = np.zeros((3, 16, 16), bool)
  mask[0, 5, 6], mask[1, :, 7:9], mask[2] = True, True, True
  found = muse.inpaint(CONFIG, params, prompt(), IMAGE, mask, KEYS, sampling=SAMPLING)
  np.testing.assert_array_equal(np.asarray(found.image)[~mask], IMAGE[~mask])
  assert (np.asarray(found.image)[mask] != IMAGE[mask]).mean() > 0.9
  kept = found.tokens == encode(CONFIG, params, jnp.asarray(IMAGE))
  expected = ~muse.mask_tokens(jnp.asarray(mask), 4)
  assert kept[expected].all()
  assert not kept.all()


def test_thin_masks_do_not_vanish():
  mask = np.zeros((2, 8, 12), bool)
  mask[0, 3, 4] = mask[1, 7, :] = True
  found = muse.mask_tokens(jnp.asarray(mask), 4).astype(int).tolist()
  assert found == [[[0, 1, 0], [0, 0, 0]], [[0, 0, 0], [1, 1, 1]]]


def test_micro_conditions():
  found = muse.micro_conditions(2, 512, 256, (3, 4), 5.5)
  assert found.tolist() == [[512, 256, 3, 4, 5.5]] * 2


def test_texts_are_filled_up_as_the_model_learned():
  text = jnp.array([[18, 0, 19, 19, 19], [18, 19, 7, 19, 19]])
  assert fill_up(CONFIG.text, text) is text
  found = fill_up(dataclasses.replace(CONFIG.text, pad=0), text)
  assert found.tolist() == [[18, 0, 19, 0, 0], [18, 19, 0, 0, 0]]


def test_on_a_mesh(params):
  """Parameters and images are split over eight devices."""
  alone = muse.generate(CONFIG, params, prompt(4), KEYS[jnp.array([0, 1, 2, 0])])
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 2})
  boxed = jax.eval_shape(lambda: muse.init_params(CONFIG, jax.random.key(0)))
  placed = jax.device_put(params, sharding.parameter_shardings(boxed, mesh))
  with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.LOGICAL_AXIS_RULES):
    inputs = jax.device_put(
      (
        prompt(4)._replace(negative=prompt(4).text * 0 + 19),
        KEYS[jnp.array([0, 1, 2, 0])],
      ),
      sharding.batch_sharding(mesh),
    )
    found = muse.generate(CONFIG, placed, *inputs)
  np.testing.assert_array_equal(found.tokens, alone.tokens)
  np.testing.assert_allclose(found.image, alone.image, atol=1e-5)


def changed(part, **fields):
  return dataclasses.replace(
    CONFIG, **{part: dataclasses.replace(getattr(CONFIG, part), **fields)}
  )


@pytest.mark.parametrize(
  ('config', 'message'),
  [
    (changed('transformer', codebook_size=31), 'codebook_size is 31, but must be 32'),
    (changed('transformer', text_width=9), 'text_width is 9, but must be 8'),
    (changed('transformer', pooled_width=9), 'pooled_width is 9, but must be 8'),
    (changed('transformer', vocab_size=32), r'vocab_size is 32, .* exceed .* = 32'),
    (changed('transformer', heads=3), r'a width of 16, which its 3 heads'),
    (changed('autoencoder', groups=3), r'a width of 8, which its 3 heads or groups'),
    (dataclasses.replace(CONFIG, image_size=18), r'18, but must be a multiple of 4'),
    (
      dataclasses.replace(changed('transformer', downsample=True), image_size=20),
      'image_size is 20, but must be a multiple of 8',
    ),
    (changed('autoencoder', local=True), 'must be one stage'),
    (
      changed('transformer', positions=True, width=18, heads=2),
      'width is 18, but must be a multiple of 4',
    ),
  ],
)
def test_parts_that_do_not_fit(config, message):
  with pytest.raises(InputError, match=message):
    muse.abstract_params(config)
