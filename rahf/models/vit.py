"""Vision Transformer (Dosovitskiy et al., 2021), in the released checkpoints' names.

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
from rahf.models.cpu_kernels import product
from rahf.models.layers import partitioned
from rahf.models.sizes import Flag, Layers, Side, Width

GELUS = {
  'tanh': nn.gelu,
  'exact': functools.partial(nn.gelu, approximate=False),
  'quick': lambda x: x * nn.sigmoid(1.702 * x),
}


@typing.runtime_checkable
class BlockConfig(typing.Protocol):
  """What a block has to know: sizes, and details that no array shows."""

  heads: int
  mlp: int
  norm_epsilon: float
  gelu: str


@dataclasses.dataclass(frozen=True)
class ViTConfig:
  """Sizes of a ViT; the defaults are B/16.

  Attributes:
    patch: side of a patch in pixels.
    class_token: prepend a learned token, as the released checkpoints do.
    norm_epsilon: of the layer norms; 1e-12 in Hugging Face's ViT.
    gelu: 'tanh' is the approximation of the released models, 'exact' is Hugging
      Face's.
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
  """Encodes an image to tokens, row by row after the class token.

  Attributes:
    remat: compute the blocks again for the gradient instead of keeping them.
  """

  config: ViTConfig
  dropout_rate: float
  dtype: jnp.dtype
  remat: bool = False

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
      config, self.dropout_rate, self.dtype, self.remat, name='Transformer'
    )(x, train=train)


class Transformer(nn.Module):
  """Learned positions, pre-norm blocks, a final norm."""

  config: ViTConfig
  dropout_rate: float
  dtype: jnp.dtype
  remat: bool

  @nn.compact
  def __call__(self, x: Float[Array, 'B N D'], *, train: bool) -> Float[Array, 'B N D']:
    config = self.config
    x = AddPositions(config.class_token, self.dtype, name='posembed_input')(x)
    x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
    for i in range(config.layers):
      block = Block(config, self.dropout_rate, self.dtype, name=f'encoderblock_{i}')
      x = layers.rematerialized(block, self.remat)(x, train=train)
      x = layers.split_by_batch(x)
    return layer_norm(config, self.dtype, 'encoder_norm')(x)


class AddPositions(nn.Module):
  """Adds a learned embedding to each token by its place.

  It starts as sines and cosines of row and column, from which a model that is not
  pretrained learns places sooner than from noise (Beyer et al., 2022).
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
  """Returns waves of row and column for the tokens of a square grid, row by row.

  A quarter of the width each: sine and cosine of the column, then of the row, with
  wavelengths in a geometric series up to 10,000 tokens; 0 in what is left over.
  """
  quarter = width // 4
  frequencies = 10_000.0 ** -(np.arange(quarter) / max(quarter - 1, 1))
  row, column = (axis.reshape(-1, 1) * frequencies for axis in np.mgrid[:grid, :grid])
  waves = np.concatenate([np.sin(column), np.cos(column), np.sin(row), np.cos(row)], 1)
  return np.pad(waves, ((0, 0), (0, width - 4 * quarter)))


class Block(nn.Module):
  """Self-attention and an MLP, each after a norm and added to the stream."""

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
  """Every token attends to every token, or to those where the mask is True."""

  heads: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, 'B N D'], mask: Bool[Array, '#B 1 N N'] | None = None
  ) -> Float[Array, 'B N D']:
    width = x.shape[-1]
    head_width = width // self.heads

    def project(name: str) -> Float[Array, 'B N H K']:
      shape = (width, self.heads, head_width)
      axes = ('embed', 'heads', None)
      return Projection(shape, axes, 1, self.dtype, name=name)(x)

    y = attend(
      project('query'),
      project('key'),
      project('value'),
      scale=head_width**-0.5,
      mask=mask,
    )
    shape = (self.heads, head_width, width)
    return Projection(shape, ('heads', None, 'embed'), 2, self.dtype, name='out')(y)


class Projection(nn.Module):
  """A dense layer from or to several axes, with the kernel kept in that shape.

  Attributes:
    shape: of the kernel: inputs, then outputs.
    axes: its logical axes.
    inputs: how many of them are inputs.
  """

  shape: tuple[int, ...]
  axes: tuple[str | None, ...]
  inputs: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'B N *I']) -> Float[Array, 'B N *O']:
    every = tuple(range(len(self.shape)))
    xavier = nn.initializers.xavier_uniform(every[: self.inputs], every[self.inputs :])
    kernel = self.param('kernel', partitioned(xavier, *self.axes), self.shape)
    zeros = partitioned(nn.initializers.zeros, *self.axes[self.inputs :])
    bias = self.param('bias', zeros, self.shape[self.inputs :])
    x, kernel, bias = (jnp.asarray(array, self.dtype) for array in (x, kernel, bias))
    return product(x, kernel, self.inputs) + bias


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
