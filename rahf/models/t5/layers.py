"""The parts of a T5 layer: attention, MLP, relative positions.

Axis letters: B batch, L tokens, T queries, S keys, H heads, K head width, D width,
I all heads' width.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from rahf.models import layers
from rahf.models.attention import attend, attend_one
from rahf.models.layers import partitioned

RELATIVE_BUCKETS = 32
MAX_DISTANCE = 128


class KeyValue(NamedTuple):
  """Keys and values of attention."""

  key: Float[Array, 'B S H K']
  value: Float[Array, 'B S H K']


class KeyValueCache(NamedTuple):
  """Keys and values in step-by-step decoding, in the order of `attend_one`."""

  key: Float[Array, 'B H S K']
  value: Float[Array, 'B H S K']

  @classmethod
  def of(cls, memory: KeyValue) -> 'KeyValueCache':
    """Returns a cache that holds `memory`."""
    return cls(*(x.swapaxes(1, 2) for x in memory))

  def insert(self, new: KeyValue, position: Int[Array, '']) -> 'KeyValueCache':
    """Returns a copy with `new` written at `position` of the S axis."""
    return KeyValueCache(
      *(
        jax.lax.dynamic_update_slice_in_dim(old, fresh, position, axis=2)
        for old, fresh in zip(self, KeyValueCache.of(new), strict=True)
      )
    )


class Attention(nn.Module):
  """Multi-head attention without biases; 1/sqrt(K) is in the query's initialiser."""

  width: int
  heads: int
  head_dim: int
  dtype: jnp.dtype

  def setup(self):
    inner = self.heads * self.head_dim
    fan_in = nn.initializers.variance_scaling(1.0, 'fan_in', 'normal')
    shrunk = nn.initializers.variance_scaling(1.0 / self.head_dim, 'fan_in', 'normal')
    dense = functools.partial(layers.dense, dtype=self.dtype, bias_init=None)
    self.query = dense(inner, 'embed', 'joined_kv', init=shrunk)
    self.key = dense(inner, 'embed', 'joined_kv', init=fan_in)
    self.value = dense(inner, 'embed', 'joined_kv', init=fan_in)
    self.out = dense(self.width, 'joined_kv', 'embed', init=fan_in)

  def _split_heads(self, x: Float[Array, 'B S I']) -> Float[Array, 'B S H K']:
    return x.reshape(*x.shape[:2], self.heads, self.head_dim)

  def keys_values(self, x: Float[Array, 'B S D']) -> KeyValue:
    return KeyValue(self._split_heads(self.key(x)), self._split_heads(self.value(x)))

  def __call__(
    self,
    x: Float[Array, 'B T D'],
    memory: KeyValue | KeyValueCache,
    *,
    bias: Float[Array, '1 H T S'] | None,
    mask: Bool[Array, '#B 1 #T S'],
  ) -> Float[Array, 'B T D']:
    """Attends to `memory`; with a cache, T is 1."""
    query = self._split_heads(self.query(x))
    if bias is not None:
      bias = jnp.asarray(bias, self.dtype)
    attention = attend_one if isinstance(memory, KeyValueCache) else attend
    y = attention(query, *memory, scale=1.0, bias=bias, mask=mask)
    return self.out(y.reshape(*y.shape[:2], -1))


class MLP(nn.Module):
  """A dense layer for each activation, their product, and a dense layer back."""

  hidden: int
  activations: tuple[str, ...]
  dropout_rate: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'B L D'], *, train: bool) -> Float[Array, 'B L D']:
    fan_in = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')
    dense = functools.partial(
      layers.dense, init=fan_in, dtype=self.dtype, bias_init=None
    )
    hidden = 1.0
    for i, activation in enumerate(self.activations):
      name = 'wi' if len(self.activations) == 1 else f'wi_{i}'
      y = dense(self.hidden, 'embed', 'mlp', name=name)(x)
      hidden = hidden * layers.activate(activation, y)
    hidden = nn.Dropout(self.dropout_rate)(hidden, deterministic=not train)
    return dense(x.shape[-1], 'mlp', 'embed', name='wo')(hidden)


class RelativePositionBias(nn.Module):
  """One learned bias per head and distance bucket, shared by all layers."""

  heads: int
  bidirectional: bool

  @nn.compact
  def __call__(self, length: int) -> Float[Array, '1 H L L']:
    table = self.param(
      'rel_embedding',
      partitioned(
        nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform'), 'heads', None
      ),
      (self.heads, RELATIVE_BUCKETS),
    )
    distance = np.arange(1 - length, length)
    bucket = relative_bucket(distance, bidirectional=self.bidirectional)
    one_hot = jax.nn.one_hot(bucket, RELATIVE_BUCKETS, dtype=table.dtype)
    return by_distance(jnp.einsum('hb,eb->he', table, one_hot))[None]


def relative_bucket(
  distance: Int[np.ndarray, '*N'], *, bidirectional: bool
) -> Int[np.ndarray, '*N']:
  """Maps key position minus query position to one of RELATIVE_BUCKETS.

  Half of the buckets are exact distances, the rest grow logarithmically up to
  MAX_DISTANCE; with `bidirectional` each direction has half of all buckets. Computed on
  the host, since an accelerator may round the logarithm into another bucket.
  """
  buckets = RELATIVE_BUCKETS
  offset = 0
  if bidirectional:
    buckets //= 2
    offset = (distance > 0) * buckets
    distance = np.abs(distance)
  else:
    distance = -np.minimum(distance, 0)
  exact = buckets // 2
  # The maximum keeps the logarithm finite; distance 0 takes the exact branch.
  ratio = np.log(np.maximum(distance, 1) / exact) / np.log(MAX_DISTANCE / exact)
  far = exact + (ratio * (buckets - exact)).astype(np.int32)
  return offset + np.where(distance < exact, distance, np.minimum(far, buckets - 1))


def by_distance(values: Float[Array, 'H E']) -> Float[Array, 'H L L']:
  """Returns an array whose element [t, s] is the value for the distance s - t.

  Args:
    values: for the distances 1 - L to L - 1.
  """
  heads, distances = values.shape
  length = (distances + 1) // 2
  # Pad by one, repeat, and cut into rows one shorter: each starts one distance lower.
  # The gradient is then a sum over rows instead of a gather's scatter.
  repeated = jnp.tile(jnp.pad(values, ((0, 0), (0, 1))), length)
  rows = repeated[:, length - 1 :][:, : length * distances]
  return rows.reshape(heads, length, distances)[..., :length]
