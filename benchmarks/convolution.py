"""Gradients of kernels on processors: the compiler's beside ours, which go by rows.

  python benchmarks/convolution.py

For one image and a 3x3 kernel, at the sizes of the heatmap head for 256 and 512 px.
"""

import functools

import jax
import jax.numpy as jnp
import machine

from metrics import median_ms
from rahf.models.convolution import DIMENSIONS, kernel_gradient
from rahf.tables import markdown_table

# Side of the map, channels.
SIZES = ((64, 384), (128, 384), (256, 192), (512, 192))
PADDING = ((1, 1), (1, 1))


def main() -> None:
  print(machine.processor())
  header = ('side', 'channels', "XLA's, ms", 'by rows, ms', 'times as fast')
  print(markdown_table(header, [measure(*size) for size in SIZES]))


def measure(side: int, channels: int) -> list[str]:
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
  milliseconds = [
    median_ms(lambda f=function: jax.block_until_ready(f(x, dy)), 4)
    for function in (by_xla, by_rows)
  ]
  ratio = milliseconds[0] / milliseconds[1]
  return [str(side), str(channels), *(f'{t:.0f}' for t in milliseconds), f'{ratio:.1f}']


if __name__ == '__main__':
  main()
