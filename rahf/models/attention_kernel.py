"""Attention with a bias that all examples share, as a kernel for TPUs.

`attention.on_chip_attention` leaves it to the compiler to keep logits on the chip,
which a TPU v5p does not. This kernel holds one head's bias on the chip while it goes
through the examples, and makes the logits of some queries at a time, which never leave
the chip. As all logits of a query are there at once, softmax is the plain one. The
backward pass computes them again, and adds up the gradient of the bias on the chip.

JAX's own kernel, `jax.experimental.pallas.ops.tpu.flash_attention`, takes a bias for
each example, and writes its gradient for each example: as many bytes as the logits.

Axis letters: B batch, T query tokens, S key tokens, H heads, K head width.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float

# Logits that are made at the same time; about six arrays of this size are needed.
LOGITS = 3 * 2**17
# Values of a head's bias that are on the chip at the same time. The backward pass holds
# four arrays of this size in float32: the bias, its gradient, and what is read or
# written meanwhile.
BIAS_VALUES = 3 * 2**19
# Of 64 MiB or more that the chips have.
_MEMORY = 48 * 2**20
_MASKED = -1e30
# Values that the chip computes at once; arrays are cut at multiples of this.
_LANES = 128


class Operands(NamedTuple):
  """What a kernel reads.

  Examples and heads come first, as blocks need it. Tokens come last, as the last axis
  is filled up to a multiple of 128 in memory, and heads have 64 values.

  Attributes:
    mask: added to the logits, 0 or `_MASKED`.
  """

  query: Float[Array, 'B H K T']
  key: Float[Array, 'B H K S']
  value: Float[Array, 'B H K S']
  bias: Float[Array, 'H T S'] | None
  mask: Float[Array, '#B #T S'] | None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def attend(
  scale: float,
  interpret: bool,
  query: Float[Array, 'B T H K'],
  key: Float[Array, 'B S H K'],
  value: Float[Array, 'B S H K'],
  bias: Float[Array, '1 H T S'] | None,
  mask: Bool[Array, '#B 1 #T S'] | None,
) -> Float[Array, 'B T H K']:
  """Returns what `attention.attend` returns.

  Args:
    interpret: run the kernel step by step in JAX, on any device.
  """
  operands = _arrange(query, key, value, bias, mask)
  parts = [_forward(scale, interpret, part) for part in _by_queries(operands)]
  return _tokens_first(jnp.concatenate(parts, -1))


def _attend_and_save(scale: float, interpret: bool, *arrays: Array | None):
  return attend(scale, interpret, *arrays), arrays


def _gradients(scale: float, interpret: bool, arrays: tuple, dy: Array) -> tuple:
  operands = _by_queries(_arrange(*arrays))
  lengths = [part.query.shape[-1] for part in operands]
  parts = jnp.split(_tokens_last(dy), np.cumsum(lengths)[:-1], -1)
  found = [
    _backward(scale, interpret, part, dy)
    for part, dy in zip(operands, parts, strict=True)
  ]
  query, key, value, bias, _ = zip(*found, strict=True)
  gradients = map(_tokens_first, (jnp.concatenate(query, -1), sum(key), sum(value)))
  of_bias = None
  if bias[0] is not None:
    of_bias = jnp.concatenate(bias, 1)[None].astype(arrays[3].dtype)
  return *gradients, of_bias, None


attend.defvjp(_attend_and_save, _gradients)


def _arrange(query, key, value, bias, mask) -> Operands:
  arrays = map(_tokens_last, (query, key, value))
  if mask is not None:
    mask = jnp.where(mask[:, 0], 0.0, _MASKED)
  return Operands(*arrays, None if bias is None else bias[0], mask)


def _tokens_last(array: Float[Array, 'B T H K']) -> Float[Array, 'B H K T']:
  return array.transpose(0, 2, 3, 1)


def _tokens_first(array: Float[Array, 'B H K T']) -> Float[Array, 'B T H K']:
  return array.transpose(0, 3, 1, 2)


def _by_queries(operands: Operands) -> list[Operands]:
  """Divides the queries so that a head's bias fits on the chip."""
  query, key, value, bias, mask = operands
  length, keys = query.shape[-1], key.shape[-1]
  return [
    Operands(
      query[..., rows],
      key,
      value,
      None if bias is None else bias[:, rows],
      mask if mask is None or mask.shape[1] == 1 else mask[:, rows],
    )
    for rows in _parts(length, keys, BIAS_VALUES)
  ]


def _forward(
  scale: float, interpret: bool, operands: Operands
) -> Float[Array, 'B H K T']:
  def kernel(read: Operands, y):
    key, value = read.key[0, 0], read.value[0, 0]
    for rows in _parts(operands.query.shape[-1], key.shape[-1], LOGITS):
      weights = _weights(scale, read, key, rows)
      weights = weights.astype(value.dtype)
      y[0, 0, :, rows] = _dot(value, weights, contract=(1, 1)).astype(y.dtype)

  of_query = _blocks(operands).query
  return pl.pallas_call(
    kernel,
    in_specs=[_blocks(operands)],
    out_specs=of_query,
    out_shape=jax.ShapeDtypeStruct(operands.query.shape, operands.value.dtype),
    **_options(operands, interpret, products=2),
  )(operands)


def _backward(
  scale: float, interpret: bool, operands: Operands, dy: Float[Array, 'B H K T']
) -> Operands:
  """Returns the gradients of the operands, without the mask's."""

  def kernel(read: Operands, dy, found: Operands):
    key, value = read.key[0, 0], read.value[0, 0]
    dkey = jnp.zeros(key.shape, jnp.float32)
    dvalue = jnp.zeros(value.shape, jnp.float32)
    for rows in _parts(operands.query.shape[-1], key.shape[-1], LOGITS):
      query, dy_rows = read.query[0, 0, :, rows], dy[0, 0, :, rows]
      weights = _weights(scale, read, key, rows)
      dvalue += _dot(dy_rows, weights.astype(value.dtype))
      dweights = _dot(dy_rows, value, contract=(0, 0))
      shift = (weights * dweights).sum(-1, keepdims=True)
      dlogits = weights * (dweights - shift)
      if found.bias is not None:
        first = pl.program_id(1) == 0
        found.bias[0, rows] = dlogits + jnp.where(first, 0, found.bias[0, rows])
      dlogits = dlogits.astype(query.dtype)
      dquery = scale * _dot(key, dlogits, contract=(1, 1))
      found.query[0, 0, :, rows] = dquery.astype(found.query.dtype)
      dkey += scale * _dot(query, dlogits)
    found.key[0, 0] = dkey.astype(found.key.dtype)
    found.value[0, 0] = dvalue.astype(found.value.dtype)

  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), operands._replace(mask=None)
  )
  if operands.bias is not None:
    shapes = shapes._replace(bias=shapes.bias.update(dtype=jnp.float32))
  blocks = _blocks(operands)
  (found,) = pl.pallas_call(
    kernel,
    in_specs=[blocks, blocks.query],
    out_specs=[blocks._replace(mask=None)],
    out_shape=[shapes],
    **_options(operands, interpret, products=5),
  )(operands, dy)
  return found


def _blocks(operands: Operands) -> Operands:
  """Returns which part of each operand belongs to a head and an example."""

  def of_both(array):
    return pl.BlockSpec((1, 1, *array.shape[2:]), lambda head, row: (row, head, 0, 0))

  query, key, value = map(of_both, operands[:3])
  bias = mask = None
  if operands.bias is not None:
    bias = pl.BlockSpec((1, *operands.bias.shape[1:]), lambda head, row: (head, 0, 0))
  if operands.mask is not None:
    shared = len(operands.mask) == 1
    mask = pl.BlockSpec(
      (1, *operands.mask.shape[1:]), lambda head, row: (0 if shared else row, 0, 0)
    )
  return Operands(query, key, value, bias, mask)


def _options(operands: Operands, interpret: bool, products: int) -> dict[str, Any]:
  """Returns how to run a kernel: for each head, an example after the other.

  Args:
    products: number of matrix products.
  """
  batch, heads, width, length = operands.query.shape
  logits = batch * heads * length * operands.key.shape[-1]
  read = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(operands))
  return dict(
    grid=(heads, batch),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'arbitrary'), vmem_limit_bytes=_MEMORY
    ),
    cost_estimate=pl.CostEstimate(
      flops=2 * products * logits * width,
      bytes_accessed=products // 2 * read,
      transcendentals=logits,
    ),
    interpret=interpret,
  )


def _parts(queries: int, keys: int, values: int) -> list[slice]:
  """Divides queries into parts with about so many values, one for each key.

  Parts start at multiples of `_LANES`. A last part of fewer queries joins the one
  before it: the compiler does not take a single one, which a class token would be.
  """
  rows = max(values // keys // _LANES, 1) * _LANES
  starts = [*range(0, max(queries - _LANES, 0) + 1, rows)]
  return [*map(slice, starts, [*starts[1:], queries])]


def _weights(
  scale: float, read: Operands, key: Float[Array, 'K S'], rows: slice
) -> Float[Array, 'R S']:
  """Returns how some queries weigh the values."""
  logits = scale * _dot(read.query[0, 0, :, rows], key, contract=(0, 0))
  if read.bias is not None:
    logits += read.bias[0, rows]
  if read.mask is not None:
    logits += read.mask[0] if read.mask.shape[1] == 1 else read.mask[0, rows]
  weights = jnp.exp(logits - logits.max(-1, keepdims=True))
  return weights / weights.sum(-1, keepdims=True)


def _dot(a: Array, b: Array, contract: tuple[int, int] = (1, 0)) -> Array:
  """Returns the product of two matrices, in float32."""
  axes = ((contract[:1], contract[1:]), ((), ()))
  return jax.lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)
