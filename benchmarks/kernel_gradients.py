"""Compares XLA's gradients on CPUs with ours.

  python benchmarks/kernel_gradients.py

Convolutions: one image and a 3x3 kernel, with the sizes of the heatmap head for 256 and
512 px. Dense layers: all gradients of an MLP with a GELU, with the sizes of the
quickstart's ViT and of T5 base. Transposed convolutions: `Deconv` and `Deconv4x4` and
the equal `nn.ConvTranspose`, forward and with all gradients. The sizes are those of the
first stage of the quickstart's heatmap head, of the paper's (two images), and of two
stages of the ResNet with maps (one image). To one channel: forward and with all
gradients, with the sizes of the last convolution of a map for 256 and 512 px.
"""

import functools

import jax
import jax.numpy as jnp
import machine
from flax import linen as nn

from metrics import median_ms
from rahf.drawing.markdown import markdown_table
from rahf.models.cpu_kernels import DIMENSIONS, convolve, kernel_gradient, product
from rahf.models.upsampling import Deconv, Deconv4x4

# Side of the map, channels.
SIZES = ((64, 384), (128, 384), (256, 192), (512, 192))
# Examples, tokens, width, hidden width.
MLP_SIZES = ((16, 65, 128, 512), (2, 384, 768, 2048))
# Images, side of the map, channels before and after.
DECONV_SIZES = ((16, 8, 64, 32), (2, 32, 384, 768))
DECONV_4X4_SIZES = ((1, 32, 256, 256), (1, 64, 256, 256))
TO_ONE_SIZES = ((256, 192), (512, 192))
PADDING = ((1, 1), (1, 1))
REPETITIONS = 7


def main() -> None:
  print(machine.processor())
  times = "XLA's, ms", 'ours, ms', 'times as fast'
  rows = [measure_convolution(*size) for size in SIZES]
  print(markdown_table(('convolution', 'channels', *times), rows), end='\n\n')
  rows = [measure_mlp(*size) for size in MLP_SIZES]
  print(markdown_table(('MLP', 'width', *times), rows), end='\n\n')
  rows = [row for size in DECONV_SIZES for row in measure_deconv(*size)]
  rows += [row for size in DECONV_4X4_SIZES for row in measure_deconv_4x4(*size)]
  print(
    markdown_table(('transposed convolution', 'channels', *times), rows), end='\n\n'
  )
  rows = [row for size in TO_ONE_SIZES for row in measure_to_one(*size)]
  print(markdown_table(('convolution to one', 'channels', *times), rows))


def measure_convolution(side: int, channels: int) -> list[str]:
  shape = 1, side, side, channels
  x, dy = (jax.random.normal(key, shape) for key in jax.random.split(jax.random.key(0)))
  kernel = jax.ShapeDtypeStruct((3, 3, channels, channels), jnp.float32)

  @jax.jit
  def by_xla(x, dy):
    convolve = functools.partial(
      jax.lax.conv_general_dilated,
      x,
      window_strides=(1, 1),
      padding=PADDING,
      dimension_numbers=DIMENSIONS,
    )
    return jax.linear_transpose(convolve, kernel)(dy)[0]

  by_rows = jax.jit(functools.partial(kernel_gradient, padding=PADDING))
  return [f'{side} px', str(channels), *compare((x, dy), by_xla, by_rows)]


def measure_mlp(examples: int, tokens: int, width: int, hidden: int) -> list[str]:
  shapes = (examples, tokens, width), (width, hidden), (hidden, width)
  keys = jax.random.split(jax.random.key(0), len(shapes))
  arrays = [
    jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)
  ]

  def gradient(multiply):
    def loss(x, into, out):
      return jnp.sum(jnp.square(multiply(jax.nn.gelu(multiply(x, into)), out)))

    return jax.jit(jax.grad(loss, (0, 1, 2)))

  ways = gradient(jnp.matmul), gradient(product)
  return [f'{examples} x {tokens}', f'{width}, {hidden}', *compare(arrays, *ways)]


def measure_deconv(*size: int) -> list[list[str]]:
  after = size[-1]
  stock = nn.ConvTranspose(after, (3, 3), (2, 2), padding=((1, 2), (1, 2)))
  return measure_modules(size, '3x3', stock, Deconv(after, jnp.dtype('float32')))


def measure_deconv_4x4(*size: int) -> list[list[str]]:
  after = size[-1]
  stock = nn.ConvTranspose(after, (4, 4), (2, 2), use_bias=False)
  ours = Deconv4x4(after, jnp.dtype('float32'), nn.initializers.normal(1e-3))
  return measure_modules(size, '4x4', stock, ours)


def measure_modules(
  size: tuple[int, ...], taps: str, stock: nn.Module, ours: nn.Module
) -> list[list[str]]:
  images, side, before, after = size
  x = jax.random.normal(jax.random.key(0), (images, side, side, before))
  params = nn.unbox(ours.init(jax.random.key(1), x))
  shown, channels = f'{taps}, {images} x {side} px', f'{before} to {after}'
  return compare_modules(shown, channels, x, params, stock, ours)


def compare_modules(
  shown: str, channels: str, x: jax.Array, params, *modules: nn.Module
) -> list[list[str]]:
  """Returns two rows: the modules forward, and with all gradients."""

  def gradient(module):
    def loss(params, x):
      return jnp.sum(jnp.square(module.apply(params, x)))

    return jax.jit(jax.grad(loss, (0, 1)))

  return [
    [f'{shown}, {name}', channels, *compare((params, x), *map(make, modules))]
    for name, make in (('forward', lambda m: jax.jit(m.apply)), ('gradients', gradient))
  ]


def measure_to_one(side: int, channels: int) -> list[list[str]]:
  x = jax.random.normal(jax.random.key(0), (1, side, side, channels))
  stock = nn.Conv(1, (3, 3))
  ours = nn.Conv(1, (3, 3), conv_general_dilated=convolve)
  params = stock.init(jax.random.key(1), x)
  return compare_modules(f'{side} px', str(channels), x, params, stock, ours)


def compare(arrays, *ways) -> list[str]:
  """Returns the milliseconds of two functions, and their ratio."""
  for function in ways:  # Compiles.
    jax.block_until_ready(function(*arrays))
  milliseconds = [
    median_ms(lambda f=function: jax.block_until_ready(f(*arrays)), REPETITIONS)
    for function in ways
  ]
  ratio = milliseconds[0] / milliseconds[1]
  return [*(f'{t:.3g}' for t in milliseconds), f'{ratio:.1f}']


if __name__ == '__main__':
  main()
