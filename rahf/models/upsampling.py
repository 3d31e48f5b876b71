"""Transposed convolutions that double height and width.

Axis letters: B batch, h w map size, C channels that come in, D that go out, K kernel
size.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from rahf.models import cpu_kernels
from rahf.models.layers import Initializer, partitioned

# An output pixel reads 9/4 of the nine taps on average.
_nine_taps = nn.initializers.variance_scaling(8.0, 'fan_in', 'truncated_normal')


class Deconv(nn.Module):
  """A 3x3 transposed convolution with a bias.

  It computes `nn.ConvTranspose(features, (3, 3), (2, 2), padding=((1, 2), (1, 2)))`:
  even output rows read their own input row with the middle tap, odd rows read two input
  rows with the outer taps, and so do columns.
  """

  features: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'B h w C']) -> Float[Array, 'B 2*h 2*w D']:
    kernel = self.param(
      'kernel',
      partitioned(_nine_taps, None, None, 'conv_in', 'conv_out'),
      (3, 3, x.shape[-1], self.features),
    )
    bias = self.param(
      'bias', partitioned(nn.initializers.zeros, 'conv_out'), (self.features,)
    )
    x, kernel, bias = (jnp.asarray(array, self.dtype) for array in (x, kernel, bias))
    return double(x, kernel) + bias


class Deconv4x4(nn.Module):
  """A 4x4 transposed convolution without bias.

  It computes `nn.ConvTranspose(features, (4, 4), (2, 2), use_bias=False)`.
  """

  features: int
  dtype: jnp.dtype
  kernel_init: Initializer

  @nn.compact
  def __call__(self, x: Float[Array, 'B h w C']) -> Float[Array, 'B 2*h 2*w D']:
    kernel = self.param('kernel', self.kernel_init, (4, 4, x.shape[-1], self.features))
    return double(jnp.asarray(x, self.dtype), jnp.asarray(kernel, self.dtype))


def double(
  x: Float[Array, 'B h w C'], kernel: Float[Array, 'K K C D']
) -> Float[Array, 'B 2*h 2*w D']:
  """Doubles height and width by a transposed convolution of stride 2.

  On CPUs, XLA's own has a gradient that takes many times as long as one matrix product
  per tap (`benchmarks/kernel_gradients.py`); elsewhere it is used.

  Args:
    kernel: of 3x3 or 4x4 taps.
  """
  return cpu_kernels.by_platform(cpu=_by_taps, default=_by_xla)(x, kernel)


def _by_xla(x: Array, kernel: Array) -> Array:
  before = _before(kernel)
  return jax.lax.conv_transpose(
    x,
    kernel,
    strides=(2, 2),
    padding=[(before, size - before) for size in kernel.shape[:2]],
    dimension_numbers=cpu_kernels.DIMENSIONS,
  )


def _by_taps(x: Array, kernel: Array) -> Array:
  """Adds up one matrix product for each tap, shifted to where it belongs.

  No product is by one of the zeros that a transposed convolution inserts.
  """

  def phase(row: int, column: int) -> Array:
    """Returns the output pixels of even or odd (0 or 1) rows and columns."""
    return functools.reduce(
      jnp.add,
      (
        _shift(cpu_kernels.product(x, kernel[i, j]), down, right)
        for i, down in _taps(kernel, row)
        for j, right in _taps(kernel, column)
      ),
    )

  batch, height, width, _ = x.shape
  rows = [jnp.stack([phase(row, column) for column in (0, 1)], 3) for row in (0, 1)]
  return jnp.stack(rows, 2).reshape(batch, 2 * height, 2 * width, kernel.shape[3])


def _taps(kernel: Array, parity: int) -> Iterator[tuple[int, int]]:
  """Yields the taps that outputs 2i + `parity` read, and the offset of their input.

  With zeros between the pixels and `before` of them in front, output r reads pixel
  (r + tap - before) / 2 if that is a whole number.
  """
  before = _before(kernel)
  for tap in range(kernel.shape[0]):
    if (parity + tap - before) % 2 == 0:
      yield tap, (parity + tap - before) // 2


def _before(kernel: Array) -> int:
  """Returns the padding in front of the rows, of `before + after = K`."""
  return kernel.shape[0] // 2


def _shift(y: Float[Array, 'B h w D'], down: int, right: int) -> Array:
  """Returns the pixels `down` and `right` of each; zeros outside of the map."""
  sides = (0, 0, 0), (-down, down, 0), (-right, right, 0), (0, 0, 0)
  return jax.lax.pad(y, jnp.zeros((), y.dtype), sides)
