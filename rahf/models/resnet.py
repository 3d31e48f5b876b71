"""ResNet-50 v1.5 (He et al., 2016; the stride is on the 3x3 convolution).

Axis letters: B batch, H W image size, h w map size, C D channels.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from rahf.fileio.validators import sequence, whole
from rahf.models import cpu_kernels
from rahf.models.layers import partitioned
from rahf.models.sizes import Width

# Of ImageNet's pixels in [0, 1], with which the public weights were trained.
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)
EXPANSION = 4  # Output channels of a bottleneck, for each of its inner ones.


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
  """Sizes of a ResNet of bottlenecks; the defaults are ResNet-50.

  Attributes:
    blocks: of each stage; each stage but the first halves the map.
    width: inner channels of the first stage; each stage doubles them.
  """

  blocks: Annotated[tuple, sequence(whole(1, 200), '(3, 4, 6, 3)', 1)] = (3, 4, 6, 3)
  width: Width = 64

  @property
  def halvings(self) -> int:
    """How often the image is halved: by convolution, pooling, stages but the first."""
    return len(self.blocks) + 1


class ResNet(nn.Module):
  """Encodes an image to a map; that of ResNet-50 has 1/32 of its size."""

  config: ResNetConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, image: Float[Array, 'B H W 3'], *, train: bool
  ) -> Float[Array, 'B h w D']:
    config = self.config
    x = conv(config.width, 7, 2, self.dtype, 'conv1', inputs=None)(image)
    x = nn.relu(BatchNorm(self.dtype, name='bn1')(x, train=train))
    # Rows and columns apart: XLA's pooling for CPUs is several times faster so.
    x = nn.max_pool(x, (3, 1), (2, 1), ((1, 1), (0, 0)))
    x = nn.max_pool(x, (1, 3), (1, 2), ((0, 0), (1, 1)))
    for stage, blocks in enumerate(config.blocks):
      for i in range(blocks):
        stride = 2 if stage and not i else 1
        block = Bottleneck(
          config.width * 2**stage, stride, self.dtype, name=f'stage{stage}_{i}'
        )
        x = block(x, train=train)
    return x


class Bottleneck(nn.Module):
  """A 3x3 convolution between two 1x1, added to the input.

  Attributes:
    width: channels of the 3x3 convolution.
    stride: of the 3x3 convolution.
  """

  width: int
  stride: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, 'B H W C'], *, train: bool
  ) -> Float[Array, 'B h w D']:
    def norm(name: str, y: Array) -> Array:
      return BatchNorm(self.dtype, name=name)(y, train=train)

    features = EXPANSION * self.width
    y = conv(self.width, 1, 1, self.dtype, 'conv1')(x)
    y = nn.relu(norm('bn1', y))
    y = conv(self.width, 3, self.stride, self.dtype, 'conv2')(y)
    y = nn.relu(norm('bn2', y))
    y = norm('bn3', conv(features, 1, 1, self.dtype, 'conv3')(y))
    if x.shape[-1] != features or self.stride > 1:
      x = conv(features, 1, self.stride, self.dtype, 'downsample_conv')(x)
      x = norm('downsample_bn', x)
    return nn.relu(x + y)


class BatchNorm(nn.Module):
  """Normalises each channel over the whole batch, on all devices together.

  Unlike `nn.BatchNorm`, the running variance is the unbiased one, as in PyTorch, so
  that public weights train on as they did there. Statistics are float32.
  """

  dtype: jnp.dtype
  momentum: float = 0.9
  epsilon: float = 1e-5

  @nn.compact
  def __call__(
    self, x: Float[Array, 'B h w C'], *, train: bool
  ) -> Float[Array, 'B h w C']:
    channels = x.shape[-1:]
    zeros, ones = nn.initializers.zeros, nn.initializers.ones
    scale = self.param('scale', partitioned(ones, 'conv_out'), channels)
    bias = self.param('bias', partitioned(zeros, 'conv_out'), channels)
    mean = self.variable('batch_stats', 'mean', jnp.zeros, channels)
    var = self.variable('batch_stats', 'var', jnp.ones, channels)
    x = jnp.asarray(x, jnp.float32)
    if train:
      now, spread = x.mean((0, 1, 2)), x.var((0, 1, 2))
      if not self.is_initializing():
        count = x.size // x.shape[-1]
        unbiased = spread * (count / max(count - 1, 1))
        for kept, found in ((mean, now), (var, unbiased)):
          kept.value = self.momentum * kept.value + (1 - self.momentum) * found
    else:
      now, spread = mean.value, var.value
    factor = scale * jax.lax.rsqrt(spread + self.epsilon)
    return jnp.asarray((x - now) * factor + bias, self.dtype)


def conv(
  features: int,
  size: int,
  stride: int,
  dtype: jnp.dtype,
  name: str,
  inputs: str | None = 'conv_in',
) -> nn.Conv:
  """Returns a square convolution without bias, padded alike on all sides.

  Args:
    inputs: the logical axis of the input channels; None if they are not sharded.
  """
  margin = size // 2
  return nn.Conv(
    features,
    (size, size),
    stride,
    ((margin, margin), (margin, margin)),
    use_bias=False,
    dtype=dtype,
    conv_general_dilated=cpu_kernels.convolve,
    kernel_init=partitioned(
      nn.initializers.he_normal(), None, None, inputs, 'conv_out'
    ),
    name=name,
  )


def init_variables(config: ResNetConfig, key: Array):
  """Makes parameters and statistics, boxed with their logical axes."""
  model = ResNet(config, jnp.dtype('float32'))
  return model.init(key, jnp.zeros((1, 32, 32, 3)), train=False)
