"""T5 encoder-decoder (Raffel et al., 2020), v1.0 and v1.1, in T5X's parameter tree.

Read from the top: sizes, the model, encoder, decoder; `t5_layers.py` has the parts of
a layer. The encoder takes embedded inputs, so that image tokens can stand in front of
text.

Axis letters: B batch, L encoder tokens, T decoder tokens, S keys, H heads, D width,
V vocabulary.
"""

import dataclasses
import functools
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from rahf.fileio.validators import one_of, sequence, whole
from rahf.models.layers import (
  ACTIVATIONS,
  RMSNorm,
  constrain_batch,
  dense,
  partitioned,
)
from rahf.models.repetition import in_turn
from rahf.models.sizes import Flag, Layers, Width
from rahf.models.t5_layers import (
  MLP,
  Attention,
  DecoderCache,
  KeyValue,
  RelativePositionBias,
)


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Sizes of a T5; the defaults are v1.1 base.

  Attributes:
    head_dim: width of one head; heads x head_dim may differ from width.
    activations: of the MLP: ('gelu', 'linear') for v1.1, gated, ('relu',) for v1.0.
    tied_logits: whether the embedding also computes the logits, as in v1.0.
  """

  vocab_size: Annotated[int, whole(1, 2**22)] = 32128
  width: Width = 768
  heads: Width = 12
  head_dim: Width = 64
  mlp: Width = 2048
  encoder_layers: Layers = 12
  decoder_layers: Layers = 12
  activations: Annotated[
    tuple, sequence(one_of(tuple(ACTIVATIONS)), "('gelu', 'linear')", least=1)
  ] = ('gelu', 'linear')
  tied_logits: Flag = False


class T5(nn.Module):
  """Token embedding, encoder and decoder, each callable separately.

  Attributes:
    remat: whether the backward pass computes the layers again.
    loop: whether the layers are compiled once, except in step-by-step decoding.
  """

  config: T5Config
  dropout_rate: float
  dtype: jnp.dtype
  remat: bool = False
  loop: bool = False

  def setup(self):
    config = self.config
    self.token_embedder = nn.Embed(
      config.vocab_size,
      config.width,
      dtype=self.dtype,
      embedding_init=partitioned(nn.initializers.normal(1.0), 'vocab', 'embed'),
    )
    settings = config, self.dropout_rate, self.dtype, self.remat, self.loop
    self.encoder = Encoder(*settings)
    self.decoder = Decoder(*settings)

  def embed(self, tokens: Int[Array, '*B L']) -> Float[Array, '*B L D']:
    return self.token_embedder(tokens)

  def encode(
    self, embedded: Float[Array, 'B L D'], mask: Bool[Array, 'B L'], *, train: bool
  ) -> Float[Array, 'B L D']:
    """Encodes embedded tokens; `mask` is False at padding."""
    return self.encoder(embedded, mask, train=train)

  def decode(
    self,
    fused: Float[Array, 'B L D'],
    fused_mask: Bool[Array, 'B L'],
    target: Int[Array, 'B T'],
    *,
    train: bool,
  ) -> Float[Array, 'B T V']:
    """Returns logits of each target token given those before it (teacher forcing)."""
    x = self.embed(shift_right(target))
    x = self.decoder(x, self.keys_values(fused), fused_mask, train=train)
    return self._logits(x)

  def keys_values(self, fused: Float[Array, 'B L D']) -> tuple[KeyValue, ...]:
    """Returns each decoder layer's keys and values of the fused tokens."""
    return self.decoder.keys_values(fused)

  def decode_at(
    self,
    memory: tuple[KeyValue, ...],
    fused_mask: Bool[Array, 'B S'],
    target: Int[Array, 'B T'],
    place: Int[Array, 'B L'],
    tokens: Int[Array, 'B L C'],
  ) -> Float[Array, 'B L C']:
    """Returns logits of C candidate tokens at L places of the target, as `decode`.

    Skips the rest of the vocabulary, which saves a sixth of the work at base size.

    Args:
      memory: of `keys_values`.
      place: positions in the target.
      tokens: the candidates at each place.
    """
    x = self.embed(shift_right(target))
    x = self.decoder(x, memory, fused_mask, train=False)
    x = jnp.take_along_axis(x, place[..., None], axis=1)
    if self.config.tied_logits:
      x = x * self.config.width**-0.5
      logits = jnp.einsum('bld,blcd->blc', x, self.embed(tokens))
    else:
      columns = self.decoder.logits_columns(tokens)
      logits = jnp.einsum('bld,dblc->blc', x, columns)
    return jnp.asarray(logits, jnp.float32)

  def decode_step(
    self,
    token: Int[Array, 'B'],
    cache: DecoderCache,
    fused_mask: Bool[Array, 'B L'],
    position: Int[Array, ''],
  ) -> tuple[Float[Array, 'B V'], DecoderCache]:
    """Returns logits of the next token, given `token` at `position`."""
    x, cache = self.decoder.step(
      self.embed(token[:, None]), cache, fused_mask, position
    )
    return self._logits(x)[:, 0], cache

  def _logits(self, x: Float[Array, 'B T D']) -> Float[Array, 'B T V']:
    if self.config.tied_logits:
      logits = self.token_embedder.attend(x * self.config.width**-0.5)
    else:
      logits = self.decoder.logits_dense(x)
    return jnp.asarray(logits, jnp.float32)


class Encoder(nn.Module):
  """Layers of bidirectional attention over embedded tokens."""

  config: T5Config
  dropout_rate: float
  dtype: jnp.dtype
  remat: bool
  loop: bool

  @nn.compact
  def __call__(
    self, x: Float[Array, 'B L D'], mask: Bool[Array, 'B L'], *, train: bool
  ) -> Float[Array, 'B L D']:
    dropout = nn.Dropout(self.dropout_rate, deterministic=not train)
    # Over one sequence: image tokens row by row, then text. T5 has no other positions.
    bias = RelativePositionBias(
      self.config.heads, bidirectional=True, name='relpos_bias'
    )(x.shape[1])
    x = dropout(x)
    layers = [
      EncoderLayer(self.config, self.dropout_rate, self.dtype, name=f'layers_{i}')
      for i in range(self.config.encoder_layers)
    ]

    def call(layer: EncoderLayer, x: Array, _: None) -> Array:
      x = layer(x, bias=bias, mask=mask[:, None, None, :], train=train)
      return constrain_batch(x)

    x = in_turn(call, layers, x, loop=self.loop, remat=self.remat)
    return dropout(RMSNorm(dtype=self.dtype, name='encoder_norm')(x))


class EncoderLayer(nn.Module):
  """Self-attention and an MLP, both pre-norm with a residual connection."""

  config: T5Config
  dropout_rate: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'B L D'],
    *,
    bias: Float[Array, '1 H L L'],
    mask: Bool[Array, 'B 1 1 L'],
    train: bool,
  ) -> Float[Array, 'B L D']:
    config = self.config
    dropout = nn.Dropout(self.dropout_rate, deterministic=not train)
    attention = Attention(
      width=config.width,
      heads=config.heads,
      head_dim=config.head_dim,
      dtype=self.dtype,
      name='attention',
    )

    y = RMSNorm(dtype=self.dtype, name='pre_attention_layer_norm')(x)
    x = x + dropout(attention(y, attention.keys_values(y), bias=bias, mask=mask))

    y = RMSNorm(dtype=self.dtype, name='pre_mlp_layer_norm')(x)
    mlp = MLP(
      hidden=config.mlp,
      activations=config.activations,
      dropout_rate=self.dropout_rate,
      dtype=self.dtype,
      name='mlp',
    )
    return x + dropout(mlp(y, train=train))


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
    length = cache.past[0].key.shape[1]
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
    fused: KeyValue,
    *,
    bias: Float[Array, '1 H T S'],
    mask: Bool[Array, '1 1 T S'],
    fused_mask: Bool[Array, 'B 1 1 L'],
    past: KeyValue | None = None,
    position: Int[Array, ''] | int = 0,
    train: bool,
  ) -> tuple[Float[Array, 'B T D'], KeyValue]:
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


def shift_right(target: Int[Array, 'B T']) -> Int[Array, 'B T']:
  """Returns the decoder's inputs: the start token, T5's padding id 0, comes first."""
  return jnp.pad(target[:, :-1], ((0, 0), (1, 0)))
