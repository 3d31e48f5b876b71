"""Vision Transformer (Dosovitskiy et al., 2021), named as in the released checkpoints.

Axis letters: B batch, N tokens (class token included where there is one), D width,
H heads, K head width.
"""

import dataclasses
import functools
import math
import typing
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from rahf.fileio.validators import one_of, real
from rahf.models import layers
from rahf.models.attention import attend
from rahf.models.cpu_kernels import dot_general
from rahf.models.layers import partitioned
from rahf.models.repetition import in_turn
from rahf.models.sizes import Flag, Layers, Side, Width

GELUS = {
  'tanh': nn.gelu,
  'exact': functools.partial(nn.gelu, approximate=False),
  'quick': lambda x: x * nn.sigmoid(1.702 * x),
}


@typing.runtime_checkable
class BlockConfig(typing.Protocol):
  """Settings of a block; CLIP's towers have them too."""

  heads: int
  mlp: int
  norm_epsilon: float
  gelu: str


@dataclasses.dataclass(frozen=True)
class ViTConfig:
  """Sizes of a ViT; the defaults are B/16.

  Attributes:
    patch: side of a patch in pixels.
    class_token: whether a learned token is prepended, as in the released checkpoints.
    norm_epsilon: of the layer norms; 1e-12 in Hugging Face's ViT.
    gelu: 'tanh', the approximation of the released models, or 'exact', as in Hugging
      Face's ViT.
  """

  patch: Side = 16
  width: Width = 768
  layers: Layers = 12
  heads: Width = 12
  mlp: Width = 3072
  class_token: Flag = True
  norm_epsilon: Annotated[float, real(1e-30, 1)] = 1e-6
  gelu: Annotated[str, one_of(('tanh', 'exact'))] = 'tanh'


class ViT(nn.Module):
  """Encodes an image to tokens: the class token, then the patches row by row.

  Attributes:
    remat: whether the backward pass computes the blocks again.
    loop: whether the blocks are compiled once.
  """

  config: ViTConfig
  dropout_rate: float
  dtype: jnp.dtype
  remat: bool = False
  loop: bool = False

  @nn.compact
  def __call__(
    self, image: Float[Array, 'B H W 3'], *, train: bool
  ) -> Float[Array, 'B N D']:
    config = self.config
    x = nn.Conv(
      config.width,
      (config.patch, config.patch),
      (config.patch, config.patch),
      'VALID',
      dtype=self.dtype,
      kernel_init=partitioned(
        nn.initializers.lecun_normal(), None, None, None, 'embed'
      ),
      bias_init=partitioned(nn.initializers.zeros, 'embed'),
      name='embedding',
    )(image)
    x = x.reshape(x.shape[0], -1, config.width)
    if config.class_token:
      cls = self.param(
        'cls',
        partitioned(nn.initializers.zeros, None, None, 'embed'),
        (1, 1, config.width),
      )
      cls = jnp.asarray(cls, self.dtype)
      x = jnp.concatenate([jnp.tile(cls, (x.shape[0], 1, 1)), x], axis=1)
    return Transformer(
      *(config, self.dropout_rate, self.dtype, self.remat, self.loop),
      name='Transformer',
    )(x, train=train)


class Transformer(nn.Module):
  """Learned positions, pre-norm blocks, a final norm."""

  config: ViTConfig
  dropout_rate: float
  dtype: jnp.dtype
  remat: bool
  loop: bool

  @nn.compact
  def __call__(self, x: Float[Array, 'B N D'], *, train: bool) -> Float[Array, 'B N D']:
    config = self.config
    x = AddPositions(config.class_token, self.dtype, name='posembed_input')(x)
    x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
    blocks = [
      Block(config, self.dropout_rate, self.dtype, name=f'encoderblock_{i}')
      for i in range(config.layers)
    ]

    def call(block: Block, x: Array, _: None) -> Array:
      return layers.constrain_batch(block(x, train=train))

    x = in_turn(call, blocks, x, loop=self.loop, remat=self.remat)
    return layer_norm(config, self.dtype, 'encoder_norm')(x)


class AddPositions(nn.Module):
  """Adds a learned position embedding.

  It starts as sines and cosines of row and column: a model without pretrained weights
  learns positions faster from these than from noise (Beyer et al., 2022).
  """

  class_token: bool
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'B N D']) -> Float[Array, 'B N D']:
    def init(key, shape, dtype=jnp.float32):
      waves = sincos_positions(math.isqrt(shape[1]), shape[2])
      if self.class_token:
        waves = np.concatenate([np.zeros((1, shape[2])), waves])
      return jnp.asarray(waves[None], dtype)

    positions = self.param(
      'pos_embedding', partitioned(init, None, None, 'embed'), (1, *x.shape[1:])
    )
    return x + jnp.asarray(positions, self.dtype)


def sincos_positions(grid: int, width: int) -> Float[np.ndarray, 'N D']:
  """Returns sinusoidal embeddings for the tokens of a square grid, row by row.

  A quarter of the width each: sine and cosine of the column, then of the row, with
  wavelengths in a geometric series up to 10,000 tokens. Remaining channels are 0.
  """
  quarter = width // 4
  frequencies = 10_000.0 ** -(np.arange(quarter) / max(quarter - 1, 1))
  row, column = (axis.reshape(-1, 1) * frequencies for axis in np.mgrid[:grid, :grid])
  waves = np.concatenate([np.sin(column), np.cos(column), np.sin(row), np.cos(row)], 1)
  return np.pad(waves, ((0, 0), (0, width - 4 * quarter)))


class Block(nn.Module):
  """Self-attention and an MLP, both pre-norm with a residual connection."""

  config: BlockConfig
  dropout_rate: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'B N D'],
    *,
    train: bool,
    mask: Bool[Array, '#B 1 N N'] | None = None,
  ) -> Float[Array, 'B N D']:
    config = self.config
    dropout = nn.Dropout(self.dropout_rate, deterministic=not train)

    y = layer_norm(config, self.dtype, 'LayerNorm_0')(x)
    attention = SelfAttention(
      config.heads, self.dtype, name='MultiHeadDotProductAttention_0'
    )
    x = x + dropout(attention(y, mask))

    y = layer_norm(config, self.dtype, 'LayerNorm_1')(x)
    y = MLP(config, self.dtype, name='MlpBlock_0')(y)
    return x + dropout(y)


class SelfAttention(nn.Module):
  """Multi-head attention of every token to every token, or to those of the mask."""

  heads: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, 'B N D'], mask: Bool[Array, '#B 1 N N'] | None = None
  ) -> Float[Array, 'B N D']:
    width = x.shape[-1]
    head_width = width // self.heads
    xavier = nn.initializers.xavier_uniform()

    def project(name: str) -> Float[Array, 'B N H K']:
      return nn.DenseGeneral(
        (self.heads, head_width),
        dtype=self.dtype,
        kernel_init=partitioned(xavier, 'embed', 'heads', None),
        bias_init=partitioned(nn.initializers.zeros, 'heads', None),
        dot_general=dot_general,
        name=name,
      )(x)

    y = attend(
      project('query'),
      project('key'),
      project('value'),
      scale=head_width**-0.5,
      mask=mask,
    )
    return nn.DenseGeneral(
      width,
      axis=(-2, -1),
      dtype=self.dtype,
      kernel_init=partitioned(xavier, 'heads', None, 'embed'),
      bias_init=partitioned(nn.initializers.zeros, 'embed'),
      dot_general=dot_general,
      name='out',
    )(y)


class MLP(nn.Module):
  """Two dense layers with a GELU between them."""

  config: BlockConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'B N D']) -> Float[Array, 'B N D']:
    dense = functools.partial(
      layers.dense,
      init=nn.initializers.xavier_uniform(),
      bias_init=nn.initializers.normal(1e-6),
      dtype=self.dtype,
    )
    hidden = dense(self.config.mlp, 'embed', 'mlp', name='Dense_0')(x)
    hidden = GELUS[self.config.gelu](hidden)
    return dense(x.shape[-1], 'mlp', 'embed', name='Dense_1')(hidden)


def layer_norm(config: BlockConfig, dtype: jnp.dtype, name: str) -> nn.LayerNorm:
  """Returns a layer norm over the width; its statistics are float32."""
  return nn.LayerNorm(
    epsilon=config.norm_epsilon,
    dtype=dtype,
    scale_init=partitioned(nn.initializers.ones, 'embed'),
    bias_init=partitioned(nn.initializers.zeros, 'embed'),
    name=name,
  )
