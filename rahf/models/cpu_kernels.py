"""Dense layers and convolutions whose gradients are also fast on CPUs.

They go into Flax's own layers: `nn.Dense(dot_general=dot_general)` and
`nn.Conv(conv_general_dilated=convolve)`. On GPUs and TPUs little changes: the order of
the operands of a matrix product, and 1x1 convolutions and patch embeddings are written
as such products; other convolutions are XLA's own there, with their gradients.

Axis letters: N leading axes, I inputs, O outputs; B batch, H W map size, C D channels,
K L kernel size.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
Padding = tuple[tuple[int, int], tuple[int, int]]

# At most so many pixels are summed over by one matrix product, but at least a row.
PIXELS = 2048
# Smaller maps, and maps of fewer channels, use XLA's gradient, which is as fast there.
LARGE_SIDE = 16
WIDE = 128
# At most so many channels are few.
FEW = 4

# A function of an image and a kernel, linear in each.
Bilinear = Callable[[Array, Array], Array]


def dot_general(
  x: Array, kernel: Array, dimension_numbers: Any, **options: Any
) -> Array:
  """Replaces `jax.lax.dot_general` in `nn.Dense` and `nn.DenseGeneral`.

  They contract the last axes of x with the first axes of the kernel.
  """
  del options
  contracting, _ = dimension_numbers
  return product(x, kernel, len(contracting[0]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(
  x: Float[Array, '...'], kernel: Float[Array, '...'], inputs: int = 1
) -> Float[Array, '...']:
  """Contracts the last axes of x with the first axes of the kernel.

  The kernel's gradient is the product of x and dy over all examples. XLA's compiler for
  CPUs transposes the first operand and computes again what produced it. JAX puts dy
  first and transposes the result; here the operand with fewer columns comes first. The
  gradient of an MLP then takes half to two thirds of the time.

  Args:
    x: N I.
    kernel: I O.
    inputs: number of axes I.

  Returns:
    N O.
  """
  return jnp.tensordot(x, kernel, inputs)


def _product_forward(x: Array, kernel: Array, inputs: int):
  return product(x, kernel, inputs), (x, kernel)


def _product_backward(inputs: int, saved: tuple[Array, Array], dy: Array):
  x, kernel = saved
  outputs = kernel.ndim - inputs
  dx = jnp.tensordot(
    dy, jnp.moveaxis(kernel, range(inputs), range(-inputs, 0)), outputs
  )
  x = x.reshape(-1, math.prod(kernel.shape[:inputs]))
  dy = dy.reshape(-1, math.prod(kernel.shape[inputs:]))
  if x.shape[1] <= dy.shape[1]:
    dkernel = _over_examples(x, dy)
  else:
    # Without the barrier the compiler would put x first.
    dkernel = jax.lax.optimization_barrier(_over_examples(dy, x)).T
  return dx, dkernel.reshape(kernel.shape)


def _over_examples(a: Float[Array, 'N A'], b: Float[Array, 'N B']) -> Array:
  return jax.lax.dot_general(a, b, (((0,), (0,)), ((), ())))


product.defvjp(_product_forward, _product_backward)


def convolve(
  x: Float[Array, 'B H W C'],
  kernel: Float[Array, 'K L I D'],
  strides: Sequence[int],
  padding: str | Sequence[tuple[int, int]],
  **options: Any,
) -> Float[Array, 'B h w D']:
  """Replaces `jax.lax.conv_general_dilated` in `nn.Conv`.

  A 1x1 convolution is a matrix product. On CPUs, XLA's convolution takes up to twice as
  long.

  XLA's other convolutions and their gradients with respect to the input are as fast as
  matrix products, but the gradient with respect to the kernel is up to ten times slower
  on large maps. That gradient is one matrix product per tap of the kernel; over a few
  rows of the map at a time, its operands stay in the cache.

  Where only a few channels come out, XLA's convolution is slow as a whole. There, one
  matrix product with all taps replaces it.

  Args:
    kernel: I is C, or less in groups.
    options: of `jax.lax.conv_general_dilated`, for channels last.
  """
  taps, strides = kernel.shape[:2], tuple(strides)
  grouped = x.shape[-1] != kernel.shape[2]
  dilations = [options.get(f'{side}_dilation') or (1, 1) for side in ('lhs', 'rhs')]
  dilated = any(tuple(steps) != (1, 1) for steps in dilations)
  if not (grouped or dilated):
    sides = padding
    if isinstance(padding, str):
      sides = jax.lax.padtype_to_pads(x.shape[1:3], taps, strides, padding)
    sides = tuple(tuple(side) for side in sides)
    if taps == (1, 1) and sides == ((0, 0), (0, 0)):
      return product(x[:, :: strides[0], :: strides[1]], kernel[0, 0])
    large = min(x.shape[1:3]) >= LARGE_SIDE and min(kernel.shape[2:]) >= WIDE
    on_cpus = _to_few if kernel.shape[3] <= FEW else _convolve if large else None
    if on_cpus and strides == (1, 1):
      on_cpus, default = (
        functools.partial(way, padding=sides) for way in (on_cpus, _plain)
      )
      return by_platform(cpu=on_cpus, default=default)(x, kernel)
  options = {'dimension_numbers': DIMENSIONS} | options
  return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)


def embed_patches(
  x: Float[Array, 'B H W C'],
  kernel: Float[Array, 'K L C D'],
  *args: Any,
  **options: Any,
) -> Float[Array, 'B h w D']:
  """Replaces `jax.lax.conv_general_dilated` where the stride is the kernel's size.

  It is a matrix product. XLA's convolution is as fast, but its gradient with respect to
  the image takes many times as long on CPUs, since it multiplies by inserted zeros.
  """
  del args, options
  tall, wide = kernel.shape[:2]
  height, width = x.shape[1] // tall, x.shape[2] // wide
  x = x[:, : height * tall, : width * wide]
  x = x.reshape(x.shape[0], height, tall, width, wide, x.shape[-1])
  return product(x.swapaxes(2, 3), kernel, 3)


def depthwise(
  x: Float[Array, 'B H W C'],
  kernel: Float[Array, 'K L 1 C'],
  *args: Any,
  **options: Any,
) -> Float[Array, 'B H W C']:
  """Replaces `jax.lax.conv_general_dilated` where every channel is its own group.

  The stride is 1, the sizes of the kernel are odd, and the padding keeps the size of
  the map. XLA's grouped convolution for CPUs is slow, and its gradient slower still;
  sums of shifted maps are not.
  """
  del args, options
  (tall, wide), (height, width) = kernel.shape[:2], x.shape[1:3]
  x = jnp.pad(x, ((0, 0), (tall // 2,) * 2, (wide // 2,) * 2, (0, 0)))
  return sum(
    x[:, i : i + height, j : j + width] * kernel[i, j, 0]
    for i in range(tall)
    for j in range(wide)
  )


def by_platform(cpu: Bilinear, default: Bilinear) -> Bilinear:
  """Returns a function that is computed in one way on CPUs, in another elsewhere.

  The gradient is that of the way itself. JAX's own gradient of `platform_dependent`
  would keep what any of the ways needs.
  """

  @jax.custom_vjp
  def run(x: Array, kernel: Array) -> Array:
    return jax.lax.platform_dependent(x, kernel, cpu=cpu, default=default)

  def forward(x: Array, kernel: Array):
    return run(x, kernel), (x, kernel)

  def backward(saved: tuple[Array, Array], dy: Array):
    def pull(way: Bilinear) -> Callable:
      return lambda x, kernel, dy: jax.vjp(way, x, kernel)[1](dy)

    return jax.lax.platform_dependent(*saved, dy, cpu=pull(cpu), default=pull(default))

  run.defvjp(forward, backward)
  return run


def _plain(x: Array, kernel: Array, padding: Padding) -> Array:
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), padding, dimension_numbers=DIMENSIONS
  )


def _to_few(
  x: Float[Array, 'B H W C'], kernel: Float[Array, 'K L C D'], padding: Padding
) -> Float[Array, 'B h w D']:
  """Multiplies each pixel with all taps, then adds up what every output reads."""
  parts = product(x, jnp.moveaxis(kernel, 2, 0))
  parts = jnp.pad(parts, ((0, 0), *padding, (0, 0), (0, 0), (0, 0)))
  tall, wide = kernel.shape[:2]
  height, width = parts.shape[1] - tall + 1, parts.shape[2] - wide + 1
  return sum(
    parts[:, i : i + height, j : j + width, i, j]
    for i in range(tall)
    for j in range(wide)
  )


_convolve = jax.custom_vjp(_plain, nondiff_argnums=(2,))


def _convolve_forward(x: Array, kernel: Array, padding: Padding):
  return _plain(x, kernel, padding), (x, kernel)


def _convolve_backward(padding: Padding, saved: tuple[Array, Array], dy: Array):
  x, kernel = saved
  (dx,) = jax.linear_transpose(lambda x: _plain(x, kernel, padding), x)(dy)
  return dx, kernel_gradient(x, dy, padding).astype(kernel.dtype)


_convolve.defvjp(_convolve_forward, _convolve_backward)


def kernel_gradient(
  x: Float[Array, 'B H W C'], dy: Float[Array, 'B h w D'], padding: Padding
) -> Float[Array, 'K L C D']:
  """Returns the kernel's gradient for a convolution of stride 1.

  Args:
    dy: the gradient with respect to the convolution's result.
    padding: of the convolution, before and after, for height and width.
  """
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  batch, height, width, features = dy.shape
  taps = x.shape[1] - height + 1, x.shape[2] - width + 1
  possible = (n for n in range(1, height + 1) if height % n == 0)
  rows = max((n for n in possible if batch * n * width <= PIXELS), default=1)

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
