"""Heads that predict a map or a score from fused image tokens (paper section 4.1).

Axis letters: B batch, h w token grid, H W map size, C channels.
"""

import dataclasses
from typing import Annotated

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from rahf.fileio.validators import one_of
from rahf.models import cpu_kernels
from rahf.models.layers import (
  RMSNorm,
  constrain_batch,
  conv,
  dense,
  partitioned,
  rematerialized,
)
from rahf.models.sizes import Flag, Side, Width, Widths
from rahf.models.upsampling import Deconv

NORM_EPSILON = 1e-8
# Maps are nearly empty. Starting at sigmoid(-4) = 0.02 instead of 0.5 keeps the first
# steps from only learning that.
READOUT_BIAS = -4.0


@dataclasses.dataclass(frozen=True)
class HeatmapHeadConfig:
  """Channel widths of the heatmap head; the defaults are the paper's.

  Attributes:
    convs: 3x3 convolutions on the token grid.
    deconvs: stride-2 transposed convolutions, each followed by a residual pair of
      convolutions of the same width. log2(patch) of them reach the image's size.
    readout: the last hidden convolution.
    relu_before_norm: whether `convs` apply the ReLU before the norm; the other layers
      always apply the norm first.
  """

  convs: Widths = (768, 384)
  deconvs: Widths = (768, 384, 384, 192)
  readout: Width = 192
  relu_before_norm: Flag = False


@dataclasses.dataclass(frozen=True)
class ScoreHeadConfig:
  """Widths of the score head.

  Attributes:
    convs: channels of the convolutions over the token grid.
    size: side of their kernels.
    stride: in both directions.
    padding: 'VALID', or 'SAME', where only the stride shrinks the grid.
    dense: the hidden dense layers after the convolutions.
  """

  convs: Widths = (768, 384, 128, 64)
  size: Side = 2
  stride: Side = 2
  padding: Annotated[str, one_of(('VALID', 'SAME'))] = 'VALID'
  dense: Widths = (2048, 1024)


class HeatmapHead(nn.Module):
  """conv, deconv, sigmoid: a token grid to a map in [0, 1].

  Attributes:
    remat: whether the backward pass computes the stages again.
  """

  config: HeatmapHeadConfig
  dtype: jnp.dtype
  remat: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, 'B h w C']) -> Float[Array, 'B H W']:
    config = self.config
    for i, width in enumerate(config.convs):
      x = conv(width, name=f'conv_{i}', dtype=self.dtype)(x)
      normalize = norm(f'conv_{i}_norm', self.dtype)
      x = normalize(nn.relu(x)) if config.relu_before_norm else nn.relu(normalize(x))
      x = constrain_batch(x)
    for i, width in enumerate(config.deconvs):
      stage = UpsampleStage(width, self.dtype, name=f'stage_{i}')
      x = rematerialized(stage, self.remat)(x)
    x = nn.relu(conv(config.readout, name='readout_0', dtype=self.dtype)(x))
    x = nn.Conv(
      1,
      (3, 3),
      dtype=self.dtype,
      conv_general_dilated=cpu_kernels.convolve,
      kernel_init=partitioned(
        nn.initializers.lecun_normal(), None, None, 'conv_in', None
      ),
      bias_init=partitioned(nn.initializers.constant(READOUT_BIAS), None),
      name='readout_1',
    )(x)
    return nn.sigmoid(jnp.asarray(x[..., 0], jnp.float32))


class UpsampleStage(nn.Module):
  """Doubles height and width, then adds a residual pair of convolutions."""

  width: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'B h w C']) -> Float[Array, 'B 2*h 2*w D']:
    x = Deconv(self.width, self.dtype, name='deconv')(x)
    x = constrain_batch(nn.relu(norm('deconv_norm', self.dtype)(x)))
    y = conv(self.width, name='conv_0', dtype=self.dtype)(x)
    y = constrain_batch(nn.relu(norm('conv_0_norm', self.dtype)(y)))
    y = conv(self.width, name='conv_1', dtype=self.dtype)(y)
    return constrain_batch(nn.relu(x + norm('conv_1_norm', self.dtype)(y)))


class ScoreHead(nn.Module):
  """conv, linear, sigmoid: a token grid to a score in [0, 1]."""

  config: ScoreHeadConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'B h w C']) -> Float[Array, 'B']:
    config = self.config
    for i, width in enumerate(config.convs):
      x = conv(
        width,
        name=f'conv_{i}',
        dtype=self.dtype,
        size=config.size,
        stride=config.stride,
        padding=config.padding,
      )(x)
      # Without this constraint, XLA gets some gradients of small convolutions wrong if
      # data, fsdp and tensor all have several devices.
      x = constrain_batch(nn.relu(norm(f'conv_{i}_norm', self.dtype)(x)))
    x = x.reshape(x.shape[0], -1)
    for i, width in enumerate(config.dense):
      x = dense(
        width,
        None,
        'mlp',
        init=nn.initializers.he_normal(),
        dtype=self.dtype,
        name=f'dense_{i}',
      )(x)
      x = nn.relu(x)
    x = dense(
      1,
      'mlp',
      None,
      init=nn.initializers.lecun_normal(),
      dtype=self.dtype,
      name='score',
    )(x)
    return nn.sigmoid(jnp.asarray(x[:, 0], jnp.float32))


def norm(name: str, dtype: jnp.dtype) -> RMSNorm:
  """Returns T5's norm over the channels of a feature map."""
  return RMSNorm(NORM_EPSILON, dtype, 'conv_out', name=name)
