"""T5's encoder.

Axis letters: B batch, L tokens, H heads, D width.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from rahf.models.layers import RMSNorm, constrain_batch
from rahf.models.repetition import in_turn
from rahf.models.t5.config import T5Config
from rahf.models.t5.layers import MLP, Attention, RelativePositionBias


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
