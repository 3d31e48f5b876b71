"""Compares ways to compute attention: run time here, or bytes moved on a TPU.

  python benchmarks/attention.py [--topology=v5e:2x2]

For one T5 layer of base size: the result, and its gradient with respect to queries,
keys, values and position biases. With a topology, it is compiled for one of its chips
(needs libtpu, but no TPU) and bytes moved and stored are printed; otherwise it is run.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import machine
import numpy as np
from absl import app, flags
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from metrics import median_ms
from rahf.costs.chips import GB, GIB
from rahf.costs.program import measure
from rahf.drawing.markdown import markdown_table
from rahf.models import attention, attention_kernel
from rahf.precompile import find_devices
from rahf.runtime.sharding import AXES

_TOPOLOGY = flags.DEFINE_string('topology', '', 'TPU slice, such as v5e:2x2.')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Repetitions; prints the median.')

# Texts and tokens: an image of 256 px, two of 512, and a chip's share of the paper's
# batch in eight micro-batches with seven texts per image.
SIZES_HERE = ((1, 384), (4, 384), (2, 1152))
SIZES_ON_A_TPU = ((4, 1152), (28, 1152))
HEADS, WIDTH = 12, 64
WAYS = {
  'at once': attention.attend_at_once,
  'in parts': attention.attend_in_parts,
  'kernel': lambda scale, *x: attention_kernel.attend(scale, False, *x),
}


def main(argv: list[str]) -> None:
  del argv
  if _TOPOLOGY.value:
    device = find_devices(_TOPOLOGY.value)[0]
    print(device.device_kind)
    header = ('texts', 'tokens', '', 'GB moved', 'temporaries, GiB')
    rows = [
      [*map(str, size), way, *compiled(device, size, WAYS[way])]
      for size in SIZES_ON_A_TPU
      for way in WAYS
    ]
  else:
    print(machine.processor())
    header = ('texts', 'tokens', '', 'result, ms', 'and gradient, ms')
    rows = [
      [*map(str, size), way, *timed(size, WAYS[way])]
      for size in SIZES_HERE
      for way in ('at once', 'in parts')
    ]
  print(markdown_table(header, rows))


def make_gradient(way: Callable) -> Callable:
  """Returns the gradient of a way to compute attention."""

  def loss(*operands):
    return jnp.sum(jnp.square(way(1.0, *operands)), dtype=jnp.float32)

  return jax.value_and_grad(loss, (0, 1, 2, 3))


def compiled(device: jax.Device, size: tuple[int, int], way: Callable) -> list[str]:
  mesh = Mesh(np.reshape(device, (1, 1, 1)), AXES, (AxisType.Auto,) * 3)
  place = NamedSharding(mesh, PartitionSpec())
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    jax.eval_shape(lambda: operands(*size, jnp.bfloat16)),
  )
  with jax.set_mesh(mesh):
    costs = measure(jax.jit(make_gradient(way)), shapes, mesh, loop_trips=1)
  return [f'{costs.bytes_moved / GB:.2f}', f'{costs.temporaries / GIB:.2f}']


def timed(size: tuple[int, int], way: Callable) -> list[str]:
  arrays = operands(*size, jnp.float32)
  gradient = make_gradient(way)
  result = jax.jit(lambda *x: way(1.0, *x))
  return [
    f'{median_ms(lambda f=f: jax.block_until_ready(f(*arrays)), _REPEATS.value):.0f}'
    for f in (result, jax.jit(gradient))
  ]


def operands(texts: int, tokens: int, dtype) -> tuple[jax.Array, ...]:
  """Returns queries, keys, values, biases, and a mask of texts that end early."""
  *keys, key = jax.random.split(jax.random.key(0), 4)
  shape = texts, tokens, HEADS, WIDTH
  bias = jax.random.normal(key, (1, HEADS, tokens, tokens), dtype)
  mask = jnp.broadcast_to(jnp.arange(tokens) < tokens - 20, (texts, 1, 1, tokens))
  return *(jax.random.normal(key, shape, dtype) / 8 for key in keys), bias, mask


if __name__ == '__main__':
  app.run(main)
