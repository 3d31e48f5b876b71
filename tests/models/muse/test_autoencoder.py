"""The autoencoder's parts against Flax's layers, and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rahf.models.muse.autoencoder import (
  Autoencoder,
  AutoencoderConfig,
  RepeatConv,
  join_patches,
  split_patches,
)

FLOAT32 = jnp.dtype('float32')
SIZES = {'widths': (8, 8), 'blocks': 1, 'groups': 2, 'latents': 4, 'patch': 2}
IMAGE = np.random.default_rng(0).random((2, 8, 12, 3), np.float32)


@pytest.fixture(scope='module', params=[(), (5, 4, 3)], ids=['learned', 'fsq'])
def model(request):
  config = AutoencoderConfig(**SIZES, codes=60, levels=request.param)
  module = Autoencoder(config, FLOAT32)
  variables = nn.unbox(jax.jit(module.init)(jax.random.key(0), IMAGE))
  return config, module, variables


def test_repeat_conv_equals_repetition_and_convolution():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, 3, 5, 4)), jnp.float32)
  params = {
    'kernel': jnp.asarray(rng.normal(size=(3, 3, 4, 6)), jnp.float32),
    'bias': jnp.asarray(rng.normal(size=6), jnp.float32),
  }

  def expected(x, params):
    x = x.repeat(2, 1).repeat(2, 2)
    return nn.Conv(6, (3, 3)).apply({'params': params}, x)

  def found(x, params):
    return RepeatConv(6, FLOAT32).apply({'params': params}, x)

  np.testing.assert_allclose(found(x, params), expected(x, params), atol=1e-5)
  gradients = (
    jax.grad(lambda *args, f=f: jnp.sin(f(*args)).sum(), (0, 1))(x, params)
    for f in (found, expected)
  )
  for one, other in zip(*map(jax.tree.leaves, gradients), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize('local', [False, True])
def test_a_local_encoder_sees_each_patch_alone(local):
  sizes = {**SIZES, 'widths': (8,), 'patch': 4, 'levels': (5, 4, 3)}
  module = Autoencoder(AutoencoderConfig(**sizes, local=local), FLOAT32)
  variables = nn.unbox(module.init(jax.random.key(0), jnp.asarray(IMAGE)))
  changed = IMAGE.copy()
  changed[:, :4, :4] = 1 - changed[:, :4, :4]
  one, other = (
    module.apply(variables, jnp.asarray(image), method=Autoencoder.encode)
    for image in (IMAGE, changed)
  )
  differs = np.abs(np.asarray(one - other)).max((0, 3)) > 1e-6
  assert differs[0, 0]
  # Without `local`, norms of the whole image change everything.
  assert differs.sum() == (1 if local else differs.size)


def test_patches():
  x = split_patches(jnp.asarray(IMAGE), 2)
  assert x.shape == (2, 4, 6, 12)
  np.testing.assert_array_equal(x[1, 2, 3], IMAGE[1, 4:6, 6:8].ravel())
  np.testing.assert_array_equal(join_patches(x, 2), IMAGE)


def test_a_token_stands_for_a_square(model):
  config, module, variables = model
  assert (config.side, config.codebook_size) == (4, 60)
  found = module.apply(variables, jnp.asarray(IMAGE))
  assert found.image.shape == IMAGE.shape
  assert found.tokens.shape == (2, 2, 3)
  assert found.tokens.dtype == jnp.int32
  assert found.latents.shape == (2, 2, 3, config.code_width)
  assert 0 <= found.tokens.min() <= found.tokens.max() < 60
  np.testing.assert_array_equal(
    module.apply(variables, jnp.asarray(IMAGE), method=Autoencoder.tokens), found.tokens
  )


def test_a_certain_mixture_of_codes_is_a_token(model):
  config, module, variables = model
  tokens = jnp.asarray(np.random.default_rng(0).integers(0, 60, (2, 2, 3)))
  codebook = module.apply(variables, method=Autoencoder.codebook)
  assert codebook.shape == (60, config.code_width)
  mixture = jax.nn.one_hot(tokens, 60) @ codebook
  found, expected = (
    module.apply(variables, argument, method=method)
    for argument, method in (
      (mixture, Autoencoder.decode),
      (tokens, Autoencoder.decode_tokens),
    )
  )
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_gradients_pass_the_quantiser(model):
  config, module, variables = model

  def loss(variables, latents):
    def quantise(module, latents):
      return module.quantise(latents).latents

    return module.apply(variables, latents, method=quantise).sum()

  latents = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 2, 3)))
  if not config.levels:
    latents = jnp.concatenate([latents, latents[..., :1]], -1)
  of_variables, of_latents = jax.grad(loss, (0, 1))(variables, latents)
  expected = 1 - jnp.tanh(latents) ** 2 if config.levels else 1
  np.testing.assert_allclose(of_latents, expected * jnp.ones_like(latents), rtol=1e-5)
  # The codebook learns from its own loss alone.
  assert not any(leaf.any() for leaf in jax.tree.leaves(of_variables))
