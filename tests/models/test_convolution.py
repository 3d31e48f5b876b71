"""The convolution of the heads against XLA's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rahf.models import cpu_kernels
from rahf.models.cpu_kernels import (
  DIMENSIONS,
  FEW,
  LARGE_SIDE,
  WIDE,
  convolve,
  embed_patches,
)
from rahf.runtime import sharding

xla = functools.partial(jax.lax.conv_general_dilated, dimension_numbers=DIMENSIONS)


def values_and_gradients(conv, x, kernel, *arguments):
  """Returns y and the gradients of a weighted sum of y by x and kernel."""
  y, pull = jax.vjp(lambda x, kernel: conv(x, kernel, *arguments), x, kernel)
  weights = jnp.sin(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
  return y, *pull(weights.astype(y.dtype))


def check_same(found, expected, tolerance: float = 1e-5) -> None:
  for ours, theirs in zip(found, expected, strict=True):
    assert ours.dtype == theirs.dtype
    ours, theirs = (np.asarray(array, np.float32) for array in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, atol=tolerance * np.abs(theirs).max())


def make_inputs(size, taps, rows=2, dtype=jnp.float32):
  rng = np.random.default_rng(0)
  shapes = (rows, *size, WIDE), (*taps, WIDE, WIDE)
  return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


@pytest.mark.parametrize(
  ('size', 'taps', 'strides', 'padding'),
  [
    ((LARGE_SIDE, LARGE_SIDE), (3, 3), (1, 1), 'SAME'),
    ((LARGE_SIDE, LARGE_SIDE), (2, 2), (1, 1), ((0, 1), (0, 1))),
    ((LARGE_SIDE + 2, LARGE_SIDE), (3, 3), (1, 1), 'SAME'),
    ((LARGE_SIDE + 1, LARGE_SIDE + 3), (3, 3), (1, 1), 'VALID'),
    # Matrix products.
    ((9, 7), (1, 1), (1, 1), 'SAME'),
    ((9, 7), (1, 1), (2, 2), ((0, 0), (0, 0))),
    # Left to XLA.
    ((LARGE_SIDE, LARGE_SIDE), (2, 2), (2, 2), 'VALID'),
    ((9, 7), (1, 1), (2, 2), ((0, 1), (1, 0))),
    ((11, 7), (3, 2), (3, 2), 'SAME'),
    ((11, 7), (2, 2), (3, 3), 'VALID'),
    ((9, 7), (3, 3), (1, 1), 'SAME'),
  ],
)
def test_values_and_gradients(size, taps, strides, padding):
  arguments = *make_inputs(size, taps), strides, padding
  expected = values_and_gradients(xla, *arguments)
  check_same(values_and_gradients(convolve, *arguments), expected)


# Rows in a product, of two examples: six, one as no others divide the height, one as
# a row has more pixels.
@pytest.mark.parametrize(('pixels', 'height'), [(200, 18), (99, 19), (9, 18)])
def test_gradients_in_several_products(monkeypatch, pixels, height):
  monkeypatch.setattr(cpu_kernels, 'PIXELS', pixels)
  arguments = *make_inputs((height, LARGE_SIDE), (3, 3)), (1, 1), 'SAME'
  expected = values_and_gradients(xla, *arguments)
  check_same(values_and_gradients(convolve, *arguments), expected)


@pytest.mark.parametrize('size', [(6, 4), (8, 5)])
def test_patches(size):
  """Rows and columns that do not fill a patch are left out."""
  arguments = *make_inputs(size, (3, 2)), (3, 2), 'VALID'
  expected = values_and_gradients(xla, *arguments)
  check_same(values_and_gradients(embed_patches, *arguments), expected)


def test_bfloat16():
  """The sums are float32, so that only the results are rounded."""
  exact = make_inputs((LARGE_SIDE, LARGE_SIDE), (3, 3))
  rounded = [x.astype(jnp.bfloat16) for x in exact]
  found = values_and_gradients(convolve, *rounded, (1, 1), 'SAME')
  exact = [x.astype(jnp.float32) for x in rounded]
  expected = values_and_gradients(xla, *exact, (1, 1), 'SAME')
  check_same(found, [x.astype(jnp.bfloat16) for x in expected], tolerance=0.01)


@pytest.mark.parametrize('features', [1, FEW])
@pytest.mark.parametrize(
  ('taps', 'padding'), [((3, 3), 'SAME'), ((2, 4), ((0, 1), (2, 0))), ((3, 2), 'VALID')]
)
def test_few_channels(features, taps, padding):
  x, kernel = make_inputs((9, 7), taps)
  arguments = x, kernel[..., :features], (1, 1), padding
  check_same(
    values_and_gradients(convolve, *arguments), values_and_gradients(xla, *arguments)
  )


def test_few_channels_come_from_one_product_on_cpus():
  x, kernel = make_inputs((9, 7), (3, 3))

  def counts(platform: str) -> tuple[int, int]:
    traced = jax.jit(lambda x: convolve(x, kernel[..., :1], (1, 1), 'SAME')).trace(x)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    return text.count('stablehlo.dot_general'), text.count('stablehlo.convolution')

  assert counts('cpu') == (1, 0)
  assert counts('tpu') == counts('cuda') == (0, 1)


def test_eight_devices():
  x, kernel = make_inputs((LARGE_SIDE, LARGE_SIDE), (3, 3), rows=4)
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 2})
  place = jax.NamedSharding(mesh, jax.P(('data', 'fsdp'), None, None, 'tensor'))
  arguments = jax.device_put(x, place), kernel, (1, 1), 'SAME'
  run = jax.jit(values_and_gradients, static_argnums=(0, 3, 4))
  found = run(convolve, *arguments)
  check_same(found, values_and_gradients(xla, x, kernel, (1, 1), 'SAME'))


@pytest.mark.parametrize('taps', [(1, 1), (3, 3)])
def test_other_options_of_convolutions_are_respected(taps):
  x, kernel = make_inputs((LARGE_SIDE + 4, LARGE_SIDE + 4), taps)
  for options in (
    {'lhs_dilation': (2, 2)},
    {'rhs_dilation': (2, 2)},
    {'feature_group_count': 2},
  ):
    groups = options.get('feature_group_count', 1)
    arguments = x, kernel[:, :, : WIDE // groups], (1, 1), ((0, 0), (0, 0))
    found, expected = (f(*arguments, **options) for f in (convolve, xla))
    check_same([found], [expected])


def test_only_cpus_use_the_gradient_for_large_maps():
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
