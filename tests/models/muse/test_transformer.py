"""What the transformer does with text and positions, and at its borders."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rahf.errors import InputError
from rahf.models.cpu_kernels import depthwise
from rahf.models.muse.blocks import ResponseNorm
from rahf.models.muse.transformer import Transformer, TransformerConfig, sinusoids

CONFIG = TransformerConfig(
  **{'width': 16, 'layers': 1, 'heads': 2, 'mlp': 24, 'embedding': 12},
  **{'channels': 8, 'conv_layers': 1, 'conv_heads': 2, 'vocab_size': 20},
  **{'codebook_size': 12, 'text_width': 6, 'pooled_width': 5, 'frequencies': 2},
  dropout_rate=0.3,
)
RNG = np.random.default_rng(0)
TOKENS = jnp.asarray(RNG.integers(0, 20, (2, 4, 4)))
TEXT = jnp.asarray(RNG.normal(size=(2, 3, 6)), jnp.float32)
POOLED = jnp.asarray(RNG.normal(size=(2, 5)), jnp.float32)
MICRO = jnp.array([[64.0, 64, 0, 0, 6]] * 2)


@pytest.fixture(scope='module')
def apply():
  """The function from text and its bias to logits, of a model that heeds all of it."""
  model = Transformer(CONFIG, jnp.dtype('float32'))
  inputs = TOKENS, TEXT, POOLED, MICRO
  init = jax.jit(lambda key: model.init(key, *inputs, train=False))
  params = nn.unbox(init(jax.random.key(0)))
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  # Modulation starts at 0.
  params = tree.unflatten(
    x + 0.2 * jax.random.normal(key, x.shape)
    for x, key in zip(leaves, keys, strict=True)
  )

  @jax.jit
  def call(text, bias=None):
    return model.apply(params, TOKENS, text, POOLED, MICRO, bias, train=False)

  def train(key):
    return model.apply(params, *inputs, train=True, rngs={'dropout': key})

  return call, jax.jit(train)


@pytest.mark.parametrize('known', [False, True])
def test_masked_tokens_know_where_they_are_by_positions(known):
  config = dataclasses.replace(CONFIG, dropout_rate=0.0, positions=known)
  model = Transformer(config, jnp.dtype('float32'))
  masked = jnp.full((2, 7, 7), config.mask_id)
  inputs = masked, TEXT, POOLED, MICRO
  params = model.init(jax.random.key(0), *inputs, train=False)
  logits = model.apply(params, *inputs, train=False)
  # One convolution before and one after carry the border two tokens inwards.
  inner = logits[:, 2:-2, 2:-2]
  differs = jnp.abs(inner - inner[:, :1, :1]).max()
  assert (differs > 1e-2) if known else (differs < 1e-5)


def test_a_bias_repeats_or_removes_a_token(apply):
  call, _ = apply
  assert call(TEXT).shape == (2, 4, 4, 12)
  assert call(TEXT).dtype == jnp.float32
  removed = call(TEXT, jnp.array([[0, -1e9, 0]] * 2))
  np.testing.assert_allclose(removed, call(TEXT[:, ::2]), atol=1e-5)
  twice = call(TEXT, jnp.array([[0, 0, math.log(2)]] * 2))
  repeated = call(TEXT[:, jnp.array([0, 1, 2, 2])])
  np.testing.assert_allclose(twice, repeated, atol=1e-5)
  assert jnp.abs(twice - call(TEXT)).max() > 1e-3


def test_dropout_only_in_training(apply):
  call, train = apply
  one, other = (train(jax.random.key(i)) for i in range(2))
  assert jnp.abs(one - other).max() > 1e-3
  np.testing.assert_array_equal(call(TEXT), call(TEXT))


def test_an_odd_grid_cannot_be_halved():
  config = TransformerConfig(downsample=True)
  model = Transformer(config, jnp.dtype('float32'))
  with pytest.raises(InputError, match='the grid of tokens is 4 x 3, but must be even'):
    model.init(jax.random.key(0), TOKENS[:, :, :3], TEXT, POOLED, MICRO, train=False)


def test_sinusoids():
  found = sinusoids(jnp.array([[3.0, 0.0]]), 2)
  slow = 3 / math.sqrt(10_000)
  expected = [math.cos(3), math.cos(slow), math.sin(3), math.sin(slow)]
  np.testing.assert_allclose(found[0], [expected, [1, 1, 0, 0]], atol=1e-6)


def test_response_norm_of_a_dead_channel():
  x = jnp.zeros((1, 2, 2, 3)).at[0, 0, 0, 0].set(3.0)
  params = {'scale': jnp.ones(3), 'bias': jnp.zeros(3)}
  apply = ResponseNorm(jnp.dtype('float32')).apply
  # The responses are 3, 0 and 0, of which 3 is three times the mean.
  np.testing.assert_allclose(apply({'params': params}, x), 4 * x, rtol=1e-5)
  gradient = jax.grad(lambda x: apply({'params': params}, x).sum())(x)
  assert jnp.isfinite(gradient).all()


def test_depthwise_convolution():
  x = jnp.asarray(RNG.normal(size=(2, 5, 4, 6)), jnp.float32)
  params = {'params': {'kernel': jnp.asarray(RNG.normal(size=(3, 3, 1, 6)))}}
  ours, flax = (
    nn.Conv(6, (3, 3), feature_group_count=6, use_bias=False, **options)
    for options in ({'conv_general_dilated': depthwise}, {})
  )
  np.testing.assert_allclose(ours.apply(params, x), flax.apply(params, x), atol=1e-5)
