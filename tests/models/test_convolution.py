"""The convolution of the heads against XLA's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rahf.models.convolution import DIMENSIONS, LARGE_SIDE, WIDE, convolve

xla = functools.partial(jax.lax.conv_general_dilated, dimension_numbers=DIMENSIONS)


@pytest.mark.parametrize(
  ('size', 'taps', 'strides', 'padding'),
  [
    ((LARGE_SIDE, LARGE_SIDE), (3, 3), (1, 1), 'SAME'),
    ((LARGE_SIDE, LARGE_SIDE), (2, 2), (1, 1), ((0, 1), (0, 1))),
    # Heights that no four rows divide.
    ((LARGE_SIDE + 2, LARGE_SIDE), (3, 3), (1, 1), 'SAME'),
    ((LARGE_SIDE + 1, LARGE_SIDE + 3), (3, 3), (1, 1), 'VALID'),
    # Left to XLA.
    ((LARGE_SIDE, LARGE_SIDE), (2, 2), (2, 2), 'VALID'),
    ((9, 7), (3, 3), (1, 1), 'SAME'),
  ],
)
def test_values_and_gradients(size, taps, strides, padding):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, *size, WIDE)), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(*taps, WIDE, WIDE)), jnp.float32)

  def values_and_gradients(conv):
    y, pull = jax.vjp(lambda x, kernel: conv(x, kernel, strides, padding), x, kernel)
    return y, *pull(jnp.sin(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))

  expected = values_and_gradients(xla)
  for ours, theirs in zip(values_and_gradients(convolve), expected, strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_large_maps_have_a_gradient_of_their_own_on_processors_alone():
  x = jax.ShapeDtypeStruct((1, LARGE_SIDE, LARGE_SIDE, WIDE), jnp.float32)
  kernel = jax.ShapeDtypeStruct((3, 3, WIDE, WIDE), jnp.float32)

  def loss(kernel, x):
    return jnp.sum(convolve(x, kernel, (1, 1), 'SAME') ** 2)

  def convolutions(platform: str) -> int:
    lowered = jax.jit(jax.grad(loss)).trace(kernel, x)
    text = lowered.lower(lowering_platforms=(platform,)).as_text()
    return text.count('stablehlo.convolution')

  assert convolutions('cpu') == 1
  assert convolutions('tpu') == convolutions('cuda') == 2
