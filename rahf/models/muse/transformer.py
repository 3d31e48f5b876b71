"""aMUSEd's transformer, which predicts the masked tokens of an image (a U-ViT).

Convolutional blocks with attention to the text stand before and after the transformer
proper; at 512 px they halve the map before it and double it after it. aMUSEd's has no
position embeddings: its many convolutions carry the borders inwards. A small one does
not learn where it is that way; `positions` adds embeddings.

Axis letters: B batch, h w size of the grid of tokens, T text tokens, E text width,
P width of the pooled text, C channels of a map, D width, K number of codes.
"""

import dataclasses
import math
from typing import Annotated

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from rahf.errors import InputError
from rahf.fileio.validators import real, whole
from rahf.models import cpu_kernels, layers
from rahf.models.layers import RMSNorm, partitioned
from rahf.models.muse.blocks import Block, ConvBlock, CrossBlock, Text, dense, fan_in
from rahf.models.sizes import Flag, Layers, Width

# Numbers of the micro-conditioning: width and height in pixels, two coordinates of the
# crop, aesthetic score.
CONDITIONS = 5
LONGEST_WAVE = 10_000


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """Sizes of a transformer; the defaults are aMUSEd's for 256 px.

  Attributes:
    width, layers, heads, mlp: of the transformer proper.
    embedding: width of the table of tokens, and before the logits.
    channels, conv_layers, conv_heads: of the convolutional blocks, as many before as
      after the transformer.
    downsample: whether the blocks before halve the map and those after double it.
    positions: whether sines and cosines of row and column are added to what enters the
      transformer proper.
    vocab_size: rows of the table; the last one is the mask.
    codebook_size: the number K of codes, which are the first rows.
    text_width, pooled_width: of the text encoder's hidden states and pooled vector.
    frequencies: for each number of the micro-conditioning.
    remat: whether the backward pass computes the blocks again.
  """

  width: Width = 1024
  layers: Layers = 22
  heads: Width = 16
  mlp: Width = 2816
  embedding: Width = 768
  channels: Width = 768
  conv_layers: Annotated[int, whole(0, 200)] = 3
  conv_heads: Width = 12
  downsample: Flag = False
  positions: Flag = False
  vocab_size: Width = 8256
  codebook_size: Width = 8192
  text_width: Width = 768
  pooled_width: Width = 768
  frequencies: Width = 128
  norm_epsilon: Annotated[float, real(1e-30, 1)] = 1e-6
  dropout_rate: Annotated[float, real(0, 0.99)] = 0.0
  remat: Flag = False

  @property
  def mask_id(self) -> int:
    """The token that stands for one to be predicted."""
    return self.vocab_size - 1


class Transformer(nn.Module):
  """Predicts tokens from those that are not masked, and from text."""

  config: TransformerConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self,
    tokens: Int[Array, 'B h w'],
    text: Float[Array, 'B T E'],
    pooled: Float[Array, 'B P'],
    micro: Float[Array, 'B 5'],
    text_bias: Float[Array, 'B T'] | None = None,
    *,
    train: bool,
  ) -> Float[Array, 'B h w K']:
    """Returns logits, in float32.

    Args:
      tokens: `config.mask_id` where they are to be predicted.
      text: hidden states of the text encoder.
      pooled: its pooled vector.
      micro: see `CONDITIONS`.
      text_bias: added to the logits of all attention to text tokens: log w counts a
        token w times.

    Raises:
      InputError: the map is to be halved, but has an odd side.
    """
    config = self.config
    if config.downsample and (tokens.shape[1] % 2 or tokens.shape[2] % 2):
      raise InputError(
        f'the grid of tokens is {tokens.shape[1]} x {tokens.shape[2]}, but must be '
        'even, as this transformer halves it; give another size of the image'
      )
    text = self._text(text, pooled, micro, text_bias)
    x = self._embed(tokens)
    if config.downsample:
      x = self._halve(x)
    x = self._conv_blocks('down', x, text, train)
    grid = x.shape
    x = self._norm('norm_in', x.reshape(len(x), -1, config.channels))
    x = dense(config.width, None, 'embed', dtype=self.dtype, name='project_in')(x)
    if config.positions:
      x = x + jnp.asarray(grid_sinusoids(*grid[1:3], config.width), self.dtype)
    x = layers.constrain_batch(x)
    for i in range(config.layers):
      block = Block(
        config.heads,
        config.mlp,
        config.norm_epsilon,
        config.dropout_rate,
        self.dtype,
        name=f'block_{i}',
      )
      x = layers.rematerialized(block, config.remat)(x, text, train=train)
      x = layers.constrain_batch(x)
    x = self._norm('norm_out', x)
    x = dense(config.channels, 'embed', None, dtype=self.dtype, name='project_out')(x)
    x = self._conv_blocks('up', x.reshape(grid), text, train)
    if config.downsample:
      x = self._double(x)
    return self._logits(x)

  def _text(self, text: Array, pooled: Array, micro: Array, bias: Array | None) -> Text:
    """Projects what the image is made from to the width of the transformer."""
    width = self.config.width
    text = dense(width, None, 'embed', dtype=self.dtype, name='text_project')(text)
    numbers = sinusoids(micro, self.config.frequencies).reshape(len(micro), -1)
    condition = jnp.concatenate([jnp.asarray(pooled, jnp.float32), numbers], -1)
    for i, activate in ((0, nn.silu), (1, lambda y: y)):
      layer = dense(width, None, 'embed', dtype=self.dtype, name=f'condition_{i}')
      condition = activate(layer(condition))
    return Text(self._norm('text_norm', text), condition, bias)

  def _embed(self, tokens: Int[Array, 'B h w']) -> Float[Array, 'B h w C']:
    config = self.config
    table = self.param(
      'embedding',
      partitioned(nn.initializers.normal(1.0), 'vocab', 'embed'),
      (config.vocab_size, config.embedding),
    )
    x = self._norm('embedding_norm', jnp.asarray(table, self.dtype)[tokens])
    name = 'embedding_project'
    return dense(config.channels, 'embed', None, dtype=self.dtype, name=name)(x)

  def _conv_blocks(self, name: str, x: Array, text: Text, train: bool) -> Array:
    config = self.config
    for i in range(config.conv_layers):
      conv = ConvBlock(
        config.norm_epsilon,
        config.dropout_rate,
        self.dtype,
        name=f'{name}_conv_{i}',
      )
      x = layers.rematerialized(conv, config.remat)(x, text, train=train)
      cross = CrossBlock(
        config.conv_heads,
        config.dropout_rate,
        self.dtype,
        name=f'{name}_attention_{i}',
      )
      flat = x.reshape(len(x), -1, config.channels)
      flat = layers.rematerialized(cross, config.remat)(flat, text, train=train)
      x = layers.constrain_batch(flat.reshape(x.shape))
    return x

  def _halve(self, x: Array) -> Array:
    return nn.Conv(
      self.config.channels,
      (2, 2),
      (2, 2),
      'VALID',
      use_bias=False,
      dtype=self.dtype,
      kernel_init=partitioned(fan_in, None, None, 'embed', None),
      conv_general_dilated=cpu_kernels.embed_patches,
      name='halve',
    )(self._norm('halve_norm', x))

  def _double(self, x: Array) -> Array:
    """Makes each position 2 x 2: a transposed convolution without overlap."""
    batch, height, width, channels = x.shape
    x = nn.DenseGeneral(
      (2, 2, channels),
      use_bias=False,
      dtype=self.dtype,
      kernel_init=partitioned(fan_in, 'embed', None, None, None),
      dot_general=cpu_kernels.dot_general,
      name='double',
    )(self._norm('double_norm', x))
    return x.swapaxes(2, 3).reshape(batch, 2 * height, 2 * width, channels)

  def _logits(self, x: Array) -> Float[Array, 'B h w K']:
    config = self.config
    x = dense(config.embedding, None, 'embed', dtype=self.dtype, name='logits_in')(x)
    logits = dense(
      config.codebook_size,
      'embed',
      'vocab',
      init=nn.initializers.normal(0.02),
      dtype=self.dtype,
      name='logits',
    )(self._norm('logits_norm', x))
    return jnp.asarray(logits, jnp.float32)

  def _norm(self, name: str, x: Array) -> Array:
    return RMSNorm(self.config.norm_epsilon, self.dtype, name=name)(x)


def grid_sinusoids(height: int, width: int, features: int) -> Float[Array, 'N D']:
  """Returns sinusoids of the rows, then of the columns, of a map in reading order."""
  places = jnp.indices((height, width), jnp.float32).reshape(2, -1).T
  return sinusoids(places, features // 4).reshape(len(places), features)


def sinusoids(numbers: Float[Array, 'B n'], frequencies: int) -> Float[Array, 'B n F']:
  """Returns cosines, then sines, of each number times a geometric series.

  Its terms fall from 1 to 1 / `LONGEST_WAVE`.
  """
  series = jnp.exp(-math.log(LONGEST_WAVE) / frequencies * jnp.arange(frequencies))
  angles = jnp.asarray(numbers, jnp.float32)[..., None] * series
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)
