"""Embedding, encoder and decoder of a T5.

The encoder takes embedded inputs, so that image tokens can stand in front of text.

Axis letters: B batch, L encoder tokens, T decoder tokens, S keys, C candidates, H
heads, K head width, D width, V vocabulary.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from rahf.models.layers import partitioned
from rahf.models.t5.config import T5Config
from rahf.models.t5.decoder import Decoder, DecoderCache
from rahf.models.t5.encoder import Encoder
from rahf.models.t5.layers import KeyValue


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


def shift_right(target: Int[Array, 'B T']) -> Int[Array, 'B T']:
  """Returns the decoder's inputs: the start token, T5's padding id 0, comes first."""
  return jnp.pad(target[:, :-1], ((0, 0), (1, 0)))
