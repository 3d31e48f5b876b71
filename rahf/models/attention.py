"""Scaled dot-product attention for ViT and T5.

`attend` calls JAX's own attention unless the logits are large. The rest of this file is
for large logits: at 512 px a T5 layer makes 64 MB of float32 logits per text, and plain
attention writes and reads them about ten times for a gradient. Here they are computed
for one head and a few examples at a time, so that they fit into on-chip memory, and
computed again in the backward pass, as FlashAttention does (Dao et al., 2022): on a TPU
by the kernel of `attention_kernel.py`, elsewhere by the functions below. These are
plain JAX: the compiler for CPUs keeps what fits in fast memory.

Axis letters: B batch, G groups, R examples of a group, T query tokens, S key tokens,
H heads, K head width.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import export
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from rahf.models import attention_kernel

# Logits of more bytes per device than this are computed in parts. A TPU v5e has 128 MiB
# on the chip, which must hold several arrays of this size.
LARGE = 2**24
# Examples in one part. Two take fewer steps than one; four are too large at 512 px.
EXAMPLES = 2
_MASKED = -1e30


def attend(
  query: Float[Array, 'B T H K'],
  key: Float[Array, 'B S H K'],
  value: Float[Array, 'B S H K'],
  *,
  scale: float,
  bias: Float[Array, '1 H T S'] | None = None,
  mask: Bool[Array, '#B 1 #T S'] | None = None,
) -> Float[Array, 'B T H K']:
  """Scaled dot-product attention; logits and softmax are float32.

  Args:
    scale: multiplies the logits: 1 in T5, 1/sqrt(K) in the ViT.
    bias: added to the logits.
    mask: True where a query may attend.
  """
  batch, length, heads, _ = query.shape
  mesh = jax.sharding.get_abstract_mesh()
  devices = 1 if mesh.empty else mesh.size
  operands = query, key, value, bias, mask
  # `jax.export` traces a batch of unknown size, which cannot be compared.
  unknown_size = export.is_symbolic_dim(batch)
  # The logits of a single query are fewer than the values of its keys.
  if (
    unknown_size
    or length == 1
    or 4 * batch * heads * length * key.shape[1] <= LARGE * devices
  ):
    return attend_at_once(scale, *operands)
  at_once = functools.partial(attend_at_once, scale)
  kernel = functools.partial(attention_kernel.attend, scale, False)
  in_parts = functools.partial(attend_in_parts, scale)
  if devices > 1:
    kernel = _on_each_device(kernel, operands)
    in_parts = _on_each_device(in_parts, operands)
  # On a GPU each part would run as several small kernels.
  return jax.lax.platform_dependent(
    *operands, cuda=at_once, rocm=at_once, tpu=kernel, default=in_parts
  )


def attend_at_once(scale: float, *operands: Array | None) -> Array:
  """Returns what `attend` returns, with all logits in memory."""
  query, key, value, bias, mask = operands
  if bias is not None:
    bias = _for_each(bias, (query.shape[0], *bias.shape[1:]))
  return jax.nn.dot_product_attention(
    query, key, value, bias=bias, mask=mask, scale=scale
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _for_each(bias: Float[Array, '1 H T S'], shape: tuple) -> Float[Array, 'B H T S']:
  """Repeats the bias for each example.

  The gradient is a sum over examples, which XLA fuses with other sums on CPUs. That
  takes several times as long as the product with ones that it is here.
  """
  return jnp.broadcast_to(bias, shape)


def _for_each_forward(bias: Array, shape: tuple):
  return _for_each(bias, shape), None


def _for_each_backward(shape: tuple, saved: None, dy: Array):
  del saved
  total = _product('bhts,b->hts', dy, jnp.ones(shape[0], dy.dtype))
  return (total[None].astype(dy.dtype),)


_for_each.defvjp(_for_each_forward, _for_each_backward)


def attend_one(
  query: Float[Array, 'B 1 H K'],
  key: Float[Array, 'B H S K'],
  value: Float[Array, 'B H S K'],
  *,
  scale: float,
  bias: Float[Array, '1 H 1 S'] | None = None,
  mask: Bool[Array, '#B 1 1 S'] | None = None,
) -> Float[Array, 'B 1 H K']:
  """Returns what `attend` returns for a single query, as in step-by-step decoding.

  Heads come before key tokens: then each head is a matrix, which is read as it lies in
  memory. In the order of `attend`, XLA's compiler for CPUs copies all keys and values
  at each step.
  """
  logits = scale * _product('bhsk,bhk->bhs', key, query[:, 0])
  if bias is not None:
    logits += bias[:, :, 0]
  if mask is not None:
    logits = jnp.where(mask[:, :, 0], logits, _MASKED)
  weights = jax.nn.softmax(logits).astype(value.dtype)
  return _product('bhs,bhsk->bhk', weights, value).astype(value.dtype)[:, None]


def _on_each_device(function, operands: tuple[Array | None, ...]):
  """Maps a function over the mesh; each device takes its own examples and heads."""
  names = (
    *[('batch', None, 'heads', None)] * 3,
    (None, 'heads', None, None),
    ('batch' if operands[4] is not None and len(operands[4]) > 1 else None,),
  )
  specs = tuple(PartitionSpec(*nn.logical_to_mesh_axes(axes)) for axes in names)
  return jax.shard_map(
    function,
    in_specs=tuple(
      None if operand is None else spec
      for operand, spec in zip(operands, specs, strict=True)
    ),
    out_specs=specs[0],
    check_vma=False,
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend_in_parts(scale: float, *operands: Array | None) -> Array:
  """Returns what `attend` returns, with the logits of one part at a time."""
  return _join(on_chip_attention(scale, *operands)[0])


@functools.partial(jax.jit, static_argnums=0)
def on_chip_attention(
  scale: float,
  query: Array,
  key: Array,
  value: Array,
  bias: Array | None,
  mask: Array | None,
) -> tuple[Float[Array, 'H G R T K'], Float[Array, 'H G R T'], Float[Array, 'H G R T']]:
  """Returns the result, and per query the logits' maximum and sum of exponentials."""

  def part(bias, operands):
    query, key, value, mask = operands
    logits = _logits(scale, query, key, bias, mask)
    top = logits.max(-1)
    weights = jnp.exp(logits - top[..., None])
    total = weights.sum(-1)
    y = _product('rts,rsk->rtk', weights.astype(value.dtype), value)
    return (y / total[..., None]).astype(value.dtype), top, total

  masks = _additive_masks(mask, len(query))

  def head(operands):
    bias, *operands = operands
    return jax.lax.map(functools.partial(part, bias), (*operands, masks))

  return jax.lax.map(head, (_by_head(bias), *map(_split, (query, key, value))))


@functools.partial(jax.jit, static_argnums=0)
def on_chip_attention_gradient(
  scale: float, operands: tuple, results: tuple, dy: Float[Array, 'B T H K']
) -> tuple[Array | None, ...]:
  """Returns the gradients with respect to query, key, value and bias.

  Args:
    operands: the arguments of `on_chip_attention`.
    results: what `on_chip_attention` returned.
    dy: the gradient with respect to its first result.
  """
  query, key, value, bias, mask = operands
  y, top, total = results
  dy = _split(dy)
  # Per query token, the term that softmax subtracts from its weights' gradient.
  shift = _product('hgrtk,hgrtk->hgrt', y, dy)

  def part(bias, dbias, operands):
    query, key, value, mask, top, total, dy, shift = operands
    logits = _logits(scale, query, key, bias, mask)
    weights = jnp.exp(logits - top[..., None]) / total[..., None]
    dvalue = _product('rts,rtk->rsk', weights.astype(value.dtype), dy)
    dweights = _product('rtk,rsk->rts', dy, value)
    dlogits = weights * (dweights - shift[..., None])
    if dbias is not None:
      dbias += dlogits.sum(0)
    dlogits = dlogits.astype(query.dtype)
    dquery = scale * _product('rts,rsk->rtk', dlogits, key)
    dkey = scale * _product('rts,rtk->rsk', dlogits, query)
    return dbias, tuple(d.astype(query.dtype) for d in (dquery, dkey, dvalue))

  masks = _additive_masks(mask, len(query))

  def head(operands):
    bias, query, key, value, *others = operands
    start = None if bias is None else jnp.zeros(bias.shape, jnp.float32)
    parts = query, key, value, masks, *others
    return jax.lax.scan(functools.partial(part, bias), start, parts)

  parts = *map(_split, (query, key, value)), top, total, dy, shift
  dbias, gradients = jax.lax.map(head, (_by_head(bias), *parts))
  dbias = None if bias is None else dbias[None].astype(bias.dtype)
  return *map(_join, gradients), dbias


def _forward(scale: float, *operands: Array | None):
  results = on_chip_attention(scale, *operands)
  return _join(results[0]), (operands, results)


def _backward(scale: float, saved: tuple, dy: Array):
  return *on_chip_attention_gradient(scale, *saved, dy), None


attend_in_parts.defvjp(_forward, _backward)


def _logits(
  scale: float,
  query: Float[Array, 'R T K'],
  key: Float[Array, 'R S K'],
  bias: Float[Array, 'T S'] | None,
  mask: Float[Array, 'R #T S'] | None,
) -> Float[Array, 'R T S']:
  logits = scale * _product('rtk,rsk->rts', query, key)
  if bias is not None:
    logits += bias
  return logits if mask is None else logits + mask


def _product(axes: str, a: Array, b: Array) -> Float[Array, '...']:
  return jnp.einsum(axes, a, b, preferred_element_type=jnp.float32)


def _by_head(bias: Float[Array, '1 H T S'] | None) -> Float[Array, 'H T S'] | None:
  return None if bias is None else bias[0]


def _split(x: Float[Array, 'B T H K']) -> Float[Array, 'H G R T K']:
  examples = math.gcd(len(x), EXAMPLES)
  x = x.reshape(-1, examples, *x.shape[1:])
  return x.transpose(3, 0, 1, 2, 4)


def _join(x: Float[Array, 'H G R T K']) -> Float[Array, 'B T H K']:
  x = x.transpose(1, 2, 3, 0, 4)
  return x.reshape(-1, *x.shape[2:])


def _additive_masks(
  mask: Bool[Array, '#B 1 #T S'] | None, batch: int
) -> Float[Array, 'G R #T S'] | None:
  """Returns the mask as numbers to add to the logits: 0, or _MASKED.

  For a `where` the compiler would expand the mask to all logits, outside of the loops.
  """
  if mask is None:
    return None
  mask = jnp.broadcast_to(mask[:, 0], (batch, *mask.shape[2:]))
  mask = mask.reshape(-1, math.gcd(batch, EXAMPLES), *mask.shape[1:])
  return jnp.where(mask, 0.0, _MASKED)
