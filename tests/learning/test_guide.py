"""Guidance of a Muse by a score: it follows the score, and 0 changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import tiny_muse
from rahf import config as config_lib
from rahf.learning.guide import draw_guided
from rahf.models import muse
from rahf.models.muse.text import emptied

IMAGES = 6


@pytest.fixture(scope='module')
def drawing():
  """A Muse, prompts and noise."""
  config = tiny_muse.get_config('generator')
  sizes = config_lib.muse_config(config)
  params = nn.unbox(muse.init_params(sizes, jax.random.key(1)))
  # Nearly grey at the start, whatever the tokens are.
  params['autoencoder']['decoder']['conv_out']['kernel'] *= 200
  end = sizes.text.vocab_size - 1
  text = np.random.default_rng(0).integers(0, 500, (IMAGES, 24))
  text[:, 6:] = end
  text = jnp.asarray(text)
  micro = muse.micro_conditions(IMAGES, sizes.image_size, sizes.image_size)
  prompt = muse.Prompt(text, emptied(text, end), micro)
  keys = jax.random.split(jax.random.key(0), IMAGES)
  return sizes, params, prompt, keys, config_lib.sampling_config(config)


@pytest.fixture(scope='module')
def draw(drawing):
  sizes, params, prompt, keys, sampling = drawing

  def score(images):
    # Bright on the left, dark on the right.
    half = images.shape[2] // 2
    return images[:, :, :half].mean((1, 2, 3)) - images[:, :, half:].mean((1, 2, 3))

  @jax.jit
  def guided(strength):
    found = draw_guided(
      *(sizes, params, prompt, keys), score=score, strength=strength, sampling=sampling
    )
    return found.tokens, score(found.image)

  return guided


def test_without_strength_it_draws_as_always(drawing, draw):
  sizes, params, prompt, keys, sampling = drawing
  expected = muse.generate(sizes, params, prompt, keys, sampling=sampling)
  np.testing.assert_array_equal(draw(0.0)[0], expected.tokens)


def test_the_score_grows_with_the_strength(draw):
  _, without = draw(0.0)
  _, weak = draw(1.0)
  _, strong = draw(5.0)
  assert (strong > without).all()
  assert without.mean() < weak.mean() < strong.mean()
  _, against = draw(-5.0)
  assert (against < without).all()
