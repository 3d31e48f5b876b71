"""T5's decoder, of all positions at once or step by step.

Axis letters: B batch, L encoder tokens, T decoder tokens, S keys, H heads, D width,
V vocabulary.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from rahf.models.layers import RMSNorm, constrain_batch, dense
from rahf.models.repetition import in_turn
from rahf.models.t5.config import T5Config
from rahf.models.t5.layers import (
  MLP,
  Attention,
  KeyValue,
  KeyValueCache,
  RelativePositionBias,
)


class DecoderCache(NamedTuple):
  """Each layer's keys and values in step-by-step decoding: past and fused tokens."""

  past: tuple[KeyValueCache, ...]
  fused: tuple[KeyValueCache, ...]

  @classmethod
  def start(cls, fused: tuple[KeyValue, ...], length: int) -> 'DecoderCache':
    """Returns the cache before the first of at most `length` steps."""

    def empty(memory: Array) -> Array:
      batch, heads, _, width = memory.shape
      zeros = jnp.zeros((batch, heads, length, width), memory.dtype)
      return constrain_batch(zeros, 'heads')

    cached = tuple(map(KeyValueCache.of, fused))
    return cls(past=jax.tree.map(empty, cached), fused=cached)


class Decoder(nn.Module):
  """Layers of causal attention over embedded target tokens.

  `logits_dense` computes logits from its output; with `tied_logits` the embedding does.
  """

  config: T5Config
  dropout_rate: float
  dtype: jnp.dtype
  remat: bool
  loop: bool

  def setup(self):
    config = self.config
    self.relpos_bias = RelativePositionBias(config.heads, bidirectional=False)
    self.layers = [
      DecoderLayer(config, self.dropout_rate, self.dtype)
      for _ in range(config.decoder_layers)
    ]
    self.decoder_norm = RMSNorm(dtype=self.dtype)
    self.dropout = nn.Dropout(self.dropout_rate)
    if not config.tied_logits:
      self.logits_dense = dense(
        config.vocab_size,
        'embed',
        'vocab',
        init=nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal'),
        dtype=self.dtype,
        bias_init=None,
      )

  def keys_values(self, fused: Float[Array, 'B L D']) -> tuple[KeyValue, ...]:
    """Returns each layer's keys and values of the fused tokens."""
    return tuple(layer.keys_values(fused) for layer in self.layers)

  def __call__(
    self,
    x: Float[Array, 'B T D'],
    fused: tuple[KeyValue, ...],
    fused_mask: Bool[Array, 'B L'],
    *,
    train: bool,
  ) -> Float[Array, 'B T D']:
    """Decodes all positions at once (teacher forcing)."""
    length = x.shape[1]
    causal = jnp.tril(jnp.ones((length, length), bool))
    bias = self.relpos_bias(length)

    def call(layer: DecoderLayer, x: Array, layer_fused: KeyValue) -> Array:
      masks = {'mask': causal[None, None], 'fused_mask': fused_mask[:, None, None, :]}
      return layer(x, layer_fused, bias=bias, **masks, train=train)[0]

    x = self.dropout(x, deterministic=not train)
    x = in_turn(call, self.layers, x, fused, loop=self.loop, remat=self.remat)
    return self._norm(x, train=train)

  def step(
    self,
    x: Float[Array, 'B 1 D'],
    cache: DecoderCache,
    fused_mask: Bool[Array, 'B L'],
    position: Int[Array, ''],
  ) -> tuple[Float[Array, 'B 1 D'], DecoderCache]:
    """Decodes the token at `position`; the cache has those before it."""
    length = cache.past[0].key.shape[2]
    bias = jax.lax.dynamic_slice_in_dim(self.relpos_bias(length), position, 1, axis=2)
    seen = jnp.arange(length) <= position
    past = []
    for layer, layer_past, fused in zip(
      self.layers, cache.past, cache.fused, strict=True
    ):
      x, memory = layer(
        x,
        fused,
        bias=bias,
        mask=seen[None, None, None, :],
        fused_mask=fused_mask[:, None, None, :],
        past=layer_past,
        position=position,
        train=False,
      )
      past.append(memory)
    return self._norm(x, train=False), cache._replace(past=tuple(past))

  def logits_columns(self, tokens: Int[Array, '*B']) -> Float[Array, 'D *B']:
    """Returns the columns of the logits' kernel for some tokens."""
    kernel = nn.meta.unbox(self.logits_dense.variables)['params']['kernel']
    return jnp.take(kernel, tokens, axis=1).astype(self.dtype)

  def _norm(self, x: Float[Array, 'B T D'], *, train: bool) -> Float[Array, 'B T D']:
    return self.dropout(self.decoder_norm(x), deterministic=not train)


class DecoderLayer(nn.Module):
  """Causal self-attention, attention to the fused tokens, and an MLP."""

  config: T5Config
  dropout_rate: float
  dtype: jnp.dtype

  def setup(self):
    config = self.config
    attention = functools.partial(
      Attention,
      width=config.width,
      heads=config.heads,
      head_dim=config.head_dim,
      dtype=self.dtype,
    )
    self.pre_self_attention_layer_norm = RMSNorm(dtype=self.dtype)
    self.self_attention = attention()
    self.pre_cross_attention_layer_norm = RMSNorm(dtype=self.dtype)
    self.encoder_decoder_attention = attention()
    self.pre_mlp_layer_norm = RMSNorm(dtype=self.dtype)
    self.mlp = MLP(
      hidden=config.mlp,
      activations=config.activations,
      dropout_rate=self.dropout_rate,
      dtype=self.dtype,
    )
    self.dropout = nn.Dropout(self.dropout_rate)

  def keys_values(self, fused: Float[Array, 'B L D']) -> KeyValue:
    return self.encoder_decoder_attention.keys_values(fused)

  def __call__(
    self,
    x: Float[Array, 'B T D'],
    fused: KeyValue | KeyValueCache,
    *,
    bias: Float[Array, '1 H T S'],
    mask: Bool[Array, '1 1 T S'],
    fused_mask: Bool[Array, 'B 1 1 L'],
    past: KeyValueCache | None = None,
    position: Int[Array, ''] | int = 0,
    train: bool,
  ) -> tuple[Float[Array, 'B T D'], KeyValue | KeyValueCache]:
    """Returns the layer's output, and the keys and values of its self-attention."""

    def drop(y: Float[Array, 'B T D']) -> Float[Array, 'B T D']:
      return self.dropout(y, deterministic=not train)

    y = self.pre_self_attention_layer_norm(x)
    memory = self.self_attention.keys_values(y)
    if past is not None:
      memory = past.insert(memory, position)
    x = x + drop(self.self_attention(y, memory, bias=bias, mask=mask))

    y = self.pre_cross_attention_layer_norm(x)
    x = x + drop(self.encoder_decoder_attention(y, fused, bias=None, mask=fused_mask))

    y = self.pre_mlp_layer_norm(x)
    return x + drop(self.mlp(y, train=train)), memory
