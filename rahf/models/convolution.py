"""Convolution with a weight gradient that is also fast on CPUs.

XLA's compiler for processors is as fast as a matrix product in a convolution and in
the gradient by its input, but up to ten times slower in the gradient by its kernel
when maps are large. That gradient is one matrix product per tap of the kernel; over a
few rows of the map at a time, what they read stays in the cache.

Axis letters: B batch, H W map size, C D channels, K L kernel size.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
Padding = tuple[tuple[int, int], tuple[int, int]]

# Rows of the map in one product.
ROWS = 4
# Smaller maps and those of fewer channels are left to XLA, which is as fast there.
LARGE_SIDE = 64
WIDE = 128


def convolve(
  x: Float[Array, 'B H W C'],
  kernel: Float[Array, 'K L C D'],
  strides: Sequence[int],
  padding: str | Sequence[tuple[int, int]],
  **options: Any,
) -> Float[Array, 'B h w D']:
  """Does what `jax.lax.conv_general_dilated` does; `nn.Conv` can be given it.

  Args:
    options: those of `jax.lax.conv_general_dilated`, for channels last.
  """
  size, taps = x.shape[1:3], kernel.shape[:2]
  large = min(size) >= LARGE_SIDE and min(kernel.shape[2:]) >= WIDE
  groups = x.shape[-1] // kernel.shape[2]
  dilations = [options.get(f'{side}_dilation') or (1, 1) for side in ('lhs', 'rhs')]
  plain = all(tuple(steps) == (1, 1) for steps in (strides, *dilations))
  if not (large and plain and groups == 1):
    options = {'dimension_numbers': DIMENSIONS} | options
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
  if isinstance(padding, str):
    padding = jax.lax.padtype_to_pads(size, taps, strides, padding)
  return _convolve(x, kernel, tuple(tuple(sides) for sides in padding))


def _plain(x: Array, kernel: Array, padding: Padding) -> Array:
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), padding, dimension_numbers=DIMENSIONS
  )


_convolve = jax.custom_vjp(_plain, nondiff_argnums=(2,))


def _forward(x: Array, kernel: Array, padding: Padding):
  return _plain(x, kernel, padding), (x, kernel)


def _backward(padding: Padding, saved: tuple[Array, Array], dy: Array):
  x, kernel = saved
  (dx,) = jax.linear_transpose(lambda x: _plain(x, kernel, padding), x)(dy)

  def by_xla(x, dy):
    by_kernel = functools.partial(_plain, x, padding=padding)
    return jax.linear_transpose(by_kernel, kernel)(dy)[0]

  def by_rows(x, dy):
    return kernel_gradient(x, dy, padding).astype(kernel.dtype)

  return dx, jax.lax.platform_dependent(x, dy, cpu=by_rows, default=by_xla)


_convolve.defvjp(_forward, _backward)


def kernel_gradient(
  x: Float[Array, 'B H W C'], dy: Float[Array, 'B h w D'], padding: Padding
) -> Float[Array, 'K L C D']:
  """Returns the gradient by the kernel of a convolution of stride 1.

  Args:
    dy: the gradient by the convolution's result.
    padding: of the convolution, before and behind, for height and width.
  """
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  _, height, width, features = dy.shape
  taps = x.shape[1] - height + 1, x.shape[2] - width + 1
  rows = math.gcd(height, ROWS)

  def add_rows(total, first):
    seen = jax.lax.dynamic_slice_in_dim(x, first, rows + taps[0] - 1, axis=1)
    given = jax.lax.dynamic_slice_in_dim(dy, first, rows, axis=1)
    products = [
      [
        jnp.einsum(
          'bhwc,bhwd->cd',
          seen[:, i : i + rows, j : j + width],
          given,
          preferred_element_type=jnp.float32,
        )
        for j in range(taps[1])
      ]
      for i in range(taps[0])
    ]
    return total + jnp.array(products), None

  start = jnp.zeros((*taps, x.shape[-1], features), jnp.float32)
  return jax.lax.scan(add_rows, start, jnp.arange(0, height, rows))[0]
