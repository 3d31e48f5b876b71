"""Compares the rates of XLA and PyTorch in the operations that take most of a step.

  taskset --cpu-list 0 python benchmarks/rates.py  # One core.

A float32 matrix product, and convolutions with a 3x3 kernel of one image in the sizes
of the heatmap heads for 256 px. PyTorch keeps channels last, as the network does in
JAX. Both take turns.
"""

import os
import statistics
from collections.abc import Callable

import jax
import jax.numpy as jnp
import machine
import torch

from metrics import median_ms
from rahf.drawing.markdown import markdown_table

PRODUCT = 2048
# Side of the map, channels.
CONVOLUTIONS = ((16, 768), (64, 384), (128, 384), (256, 192))
REPETITIONS = 5
HEAD = 'operation', 'XLA, GFLOP/s', 'PyTorch, GFLOP/s', "XLA's speed"


def main() -> None:
  cores = len(os.sched_getaffinity(0))
  torch.set_num_threads(cores)
  print(f'{machine.processor()}, of which {cores} used; PyTorch {torch.__version__}')
  rows = [measure_product(), *(measure_convolution(*size) for size in CONVOLUTIONS)]
  print(markdown_table(HEAD, rows))


def measure_product() -> list[str]:
  shape = PRODUCT, PRODUCT
  x, y = jnp.ones(shape), torch.ones(shape)
  multiply = jax.jit(jnp.matmul)
  return compare(
    f'matrix product, {PRODUCT}',
    2 * PRODUCT**3,
    lambda: jax.block_until_ready(multiply(x, x)),
    lambda: y @ y,
  )


def measure_convolution(side: int, channels: int) -> list[str]:
  x = jnp.ones((1, side, side, channels))
  kernel = jnp.ones((3, 3, channels, channels))

  @jax.jit
  def convolve(x, kernel):
    layout = 'NHWC', 'HWIO', 'NHWC'
    return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=layout
    )

  def last(tensor):
    return tensor.to(memory_format=torch.channels_last)

  theirs = last(torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False))
  image = last(torch.ones(1, channels, side, side))
  return compare(
    f'convolution, {side} px, {channels} channels',
    2 * kernel.size * side**2,
    lambda: jax.block_until_ready(convolve(x, kernel)),
    lambda: theirs(image),
  )


def compare(name: str, flops: int, ours: Callable, theirs: Callable) -> list[str]:
  """Returns a row: the rates of two functions and their ratio."""
  seconds: dict[Callable, list[float]] = {ours: [], theirs: []}
  with torch.inference_mode():
    for _ in range(REPETITIONS):
      for function, found in seconds.items():
        function()  # Compiles, or fills the caches that the other one has used.
        found.append(median_ms(function, 3) / 1000)
  rates = [flops / statistics.median(found) / 1e9 for found in seconds.values()]
  return [name, *(f'{rate:.0f}' for rate in rates), f'{rates[0] / rates[1]:.2f}']


if __name__ == '__main__':
  main()
