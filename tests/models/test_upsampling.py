"""Transposed convolutions against Flax's, in values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rahf.models import upsampling
from rahf.models.upsampling import Deconv, Deconv4x4
from rahf.runtime import sharding

SIZES = [(1, 1), (3, 2), (4, 5)]
FEATURES = 5
OURS = {
  3: Deconv(FEATURES, jnp.dtype('float32')),
  4: Deconv4x4(FEATURES, jnp.dtype('float32'), nn.initializers.normal()),
}
FLAX = {
  3: nn.ConvTranspose(FEATURES, (3, 3), (2, 2), padding=((1, 2), (1, 2))),
  4: nn.ConvTranspose(FEATURES, (4, 4), (2, 2), use_bias=False),
}


def make_inputs(taps, height, width, examples=2):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(examples, height, width, 4))
  params = {'kernel': rng.normal(size=(taps, taps, 4, FEATURES))}
  if taps == 3:
    params['bias'] = rng.normal(size=FEATURES)
  return jax.tree.map(lambda values: jnp.asarray(values, jnp.float32), (x, params))


def values_and_gradients(layer, x, params):
  def apply(x, params):
    return layer.apply({'params': params}, x)

  y, pull = jax.vjp(apply, x, params)
  return y, pull(jnp.sin(y))


def check_same(found, expected):
  for ours, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(('height', 'width'), SIZES)
@pytest.mark.parametrize('taps', [3, 4])
def test_values_and_gradients(taps, height, width):
  inputs = make_inputs(taps, height, width)
  found, expected = (values_and_gradients(kind[taps], *inputs) for kind in (OURS, FLAX))
  assert found[0].shape == (2, 2 * height, 2 * width, FEATURES)
  check_same(found, expected)


@pytest.mark.parametrize('taps', [3, 4])
def test_on_a_mesh(taps):
  inputs = make_inputs(taps, 4, 6, examples=8)
  mesh = sharding.make_mesh({'data': 4, 'fsdp': 2, 'tensor': 1})
  place = jax.NamedSharding(mesh, jax.P(('data', 'fsdp')))
  placed = jax.device_put(inputs[0], place), inputs[1]
  found = jax.jit(values_and_gradients, static_argnums=0)(OURS[taps], *placed)
  check_same(found, values_and_gradients(FLAX[taps], *inputs))


@pytest.mark.parametrize('taps', [3, 4])
def test_accelerators_use_one_convolution_with_the_same_result(taps):
  x, params = make_inputs(taps, 3, 4)
  kernel = params['kernel']
  found = [way(x, kernel) for way in (upsampling._by_taps, upsampling._by_xla)]
  check_same(*found)

  def convolutions(platform: str) -> int:
    traced = jax.jit(upsampling.double).trace(x, kernel)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    return text.count('stablehlo.convolution')

  assert convolutions('cpu') == 0
  assert convolutions('tpu') == convolutions('cuda') == 1


def test_gradients_on_accelerators_are_those_of_the_convolution():
  x, params = make_inputs(3, 3, 4)

  def loss(x, kernel):
    return jnp.sum(jnp.sin(upsampling.double(x, kernel)))

  traced = jax.jit(jax.grad(loss, (0, 1))).trace(x, params['kernel'])
  text = traced.lower(lowering_platforms=('tpu',)).as_text()
  # Forward, and with respect to the image and to the kernel.
  assert text.count('stablehlo.convolution') == 3
  assert 'stablehlo.dot_general' not in text
