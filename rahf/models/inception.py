"""Inception v3 as FID uses it (Szegedy et al., 2016; Heusel et al., 2017).

It is the network of TensorFlow's file of 2015-12-05, which differs from others of that
name, torchvision's among them: average pools count only pixels of the image, and the
last block pools by maximum. Names are those of pytorch-fid's file. Only inference.

Axis letters: B batch, H W image size, h w map size, C D channels.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from rahf.models import cpu_kernels
from rahf.models.layers import partitioned
from rahf.models.resnet import BatchNorm

SIDE = 299  # Of the image, in pixels.
FEATURES = 2048
BATCH_NORM_EPSILON = 1e-3
# Always: half precision would change distances.
DTYPE = jnp.dtype('float32')


class Inception(nn.Module):
  """Embeds images by the mean of the last map (`pool_3`), before the classifier."""

  @nn.compact
  def __call__(self, image: Float[Array, 'B H W 3']) -> Float[Array, 'B 2048']:
    """Embeds images of 299 px, in [-1, 1]."""
    x = self._conv(32, 3, 'Conv2d_1a_3x3', stride=2, pad=False)(image)
    x = self._conv(32, 3, 'Conv2d_2a_3x3', pad=False)(x)
    x = self._conv(64, 3, 'Conv2d_2b_3x3')(x)
    x = max_pool(x)
    x = self._conv(80, 1, 'Conv2d_3b_1x1')(x)
    x = self._conv(192, 3, 'Conv2d_4a_3x3', pad=False)(x)
    x = max_pool(x)
    for name, pool_features in (('5b', 32), ('5c', 64), ('5d', 64)):
      x = BlockA(pool_features, name=f'Mixed_{name}')(x)
    x = BlockB(name='Mixed_6a')(x)
    for name, width in (('6b', 128), ('6c', 160), ('6d', 160), ('6e', 192)):
      x = BlockC(width, name=f'Mixed_{name}')(x)
    x = BlockD(name='Mixed_7a')(x)
    x = BlockE('mean', name='Mixed_7b')(x)
    x = BlockE('max', name='Mixed_7c')(x)
    return jnp.mean(x, (1, 2))

  def _conv(
    self, features: int, size: int, name: str, stride: int = 1, pad: bool = True
  ) -> 'ConvNorm':
    return ConvNorm(features, (size, size), stride, pad, name=name)


class ConvNorm(nn.Module):
  """A convolution without bias, batch norm and ReLU.

  Attributes:
    size: height and width of the kernel.
    pad: whether the map is padded with zeros to keep its size.
  """

  features: int
  size: tuple[int, int]
  stride: int
  pad: bool

  @nn.compact
  def __call__(self, x: Float[Array, 'B H W C']) -> Float[Array, 'B h w D']:
    init = nn.initializers.he_normal()
    x = nn.Conv(
      self.features,
      self.size,
      self.stride,
      [(side // 2 * self.pad,) * 2 for side in self.size],
      use_bias=False,
      dtype=DTYPE,
      conv_general_dilated=cpu_kernels.convolve,
      kernel_init=partitioned(init, None, None, 'conv_in', 'conv_out'),
      name='conv',
    )(x)
    norm = BatchNorm(DTYPE, epsilon=BATCH_NORM_EPSILON, name='bn')
    return nn.relu(norm(x, train=False))


class Block(nn.Module):
  """Several branches over one map, whose channels are joined in the order given."""

  def conv(
    self,
    x: Float[Array, 'B H W C'],
    features: int,
    size: int | tuple[int, int],
    name: str,
    *,
    stride: int = 1,
    pad: bool = True,
  ) -> Float[Array, 'B h w D']:
    size = (size, size) if isinstance(size, int) else size
    return ConvNorm(features, size, stride, pad, name=name)(x)


class BlockA(Block):
  """Branches of one 1x1, one 5x5 and two 3x3 convolutions, and a mean.

  Attributes:
    pool_features: channels of the mean's branch.
  """

  pool_features: int

  @nn.compact
  def __call__(self, x: Float[Array, 'B h w C']) -> Float[Array, 'B h w D']:
    point = self.conv(x, 64, 1, 'branch1x1')
    large = self.conv(x, 48, 1, 'branch5x5_1')
    large = self.conv(large, 64, 5, 'branch5x5_2')
    double = self.conv(x, 64, 1, 'branch3x3dbl_1')
    double = self.conv(double, 96, 3, 'branch3x3dbl_2')
    double = self.conv(double, 96, 3, 'branch3x3dbl_3')
    pooled = self.conv(mean_around(x), self.pool_features, 1, 'branch_pool')
    return jnp.concatenate([point, large, double, pooled], -1)


class BlockB(Block):
  """Halves the map of 35 px."""

  @nn.compact
  def __call__(self, x: Float[Array, 'B H W C']) -> Float[Array, 'B h w D']:
    single = self.conv(x, 384, 3, 'branch3x3', stride=2, pad=False)
    double = self.conv(x, 64, 1, 'branch3x3dbl_1')
    double = self.conv(double, 96, 3, 'branch3x3dbl_2')
    double = self.conv(double, 96, 3, 'branch3x3dbl_3', stride=2, pad=False)
    return jnp.concatenate([single, double, max_pool(x)], -1)


class BlockC(Block):
  """Branches of 7x7 convolutions, each split into 1x7 and 7x1.

  Attributes:
    width: channels between the convolutions of a branch.
  """

  width: int

  @nn.compact
  def __call__(self, x: Float[Array, 'B h w C']) -> Float[Array, 'B h w D']:
    point = self.conv(x, 192, 1, 'branch1x1')
    single = self.conv(x, self.width, 1, 'branch7x7_1')
    single = self.conv(single, self.width, (1, 7), 'branch7x7_2')
    single = self.conv(single, 192, (7, 1), 'branch7x7_3')
    double = self.conv(x, self.width, 1, 'branch7x7dbl_1')
    double = self.conv(double, self.width, (7, 1), 'branch7x7dbl_2')
    double = self.conv(double, self.width, (1, 7), 'branch7x7dbl_3')
    double = self.conv(double, self.width, (7, 1), 'branch7x7dbl_4')
    double = self.conv(double, 192, (1, 7), 'branch7x7dbl_5')
    pooled = self.conv(mean_around(x), 192, 1, 'branch_pool')
    return jnp.concatenate([point, single, double, pooled], -1)


class BlockD(Block):
  """Halves the map of 17 px."""

  @nn.compact
  def __call__(self, x: Float[Array, 'B H W C']) -> Float[Array, 'B h w D']:
    small = self.conv(x, 192, 1, 'branch3x3_1')
    small = self.conv(small, 320, 3, 'branch3x3_2', stride=2, pad=False)
    large = self.conv(x, 192, 1, 'branch7x7x3_1')
    large = self.conv(large, 192, (1, 7), 'branch7x7x3_2')
    large = self.conv(large, 192, (7, 1), 'branch7x7x3_3')
    large = self.conv(large, 192, 3, 'branch7x7x3_4', stride=2, pad=False)
    return jnp.concatenate([small, large, max_pool(x)], -1)


class BlockE(Block):
  """Branches that end in 1x3 and 3x1 convolutions side by side.

  Attributes:
    pool: 'mean' or 'max', over 3x3 pixels.
  """

  pool: str

  @nn.compact
  def __call__(self, x: Float[Array, 'B h w C']) -> Float[Array, 'B h w D']:
    point = self.conv(x, 320, 1, 'branch1x1')
    single = self.conv(x, 384, 1, 'branch3x3_1')
    double = self.conv(x, 448, 1, 'branch3x3dbl_1')
    double = self.conv(double, 384, 3, 'branch3x3dbl_2')
    around = max_pool(x, 1, 1) if self.pool == 'max' else mean_around(x)
    branches = [
      point,
      self.conv(single, 384, (1, 3), 'branch3x3_2a'),
      self.conv(single, 384, (3, 1), 'branch3x3_2b'),
      self.conv(double, 384, (1, 3), 'branch3x3dbl_3a'),
      self.conv(double, 384, (3, 1), 'branch3x3dbl_3b'),
      self.conv(around, 192, 1, 'branch_pool'),
    ]
    return jnp.concatenate(branches, -1)


def max_pool(
  x: Float[Array, 'B H W C'], stride: int = 2, margin: int = 0
) -> Float[Array, 'B h w C']:
  """Pools by maximum over 3x3 pixels; margins do not count."""
  # Rows and columns apart: XLA's pooling for CPUs is several times faster so.
  x = nn.max_pool(x, (3, 1), (stride, 1), ((margin, margin), (0, 0)))
  return nn.max_pool(x, (1, 3), (1, stride), ((0, 0), (margin, margin)))


def mean_around(x: Float[Array, 'B h w C']) -> Float[Array, 'B h w C']:
  """Returns the mean over 3x3 pixels; those outside the map do not count."""
  for window in ((3, 1), (1, 3)):
    x = nn.avg_pool(x, window, padding='SAME', count_include_pad=False)
  return x


def init_variables(key: Array):
  """Makes parameters and statistics, boxed with their logical axes."""
  return Inception().init(key, jnp.zeros((1, SIDE, SIDE, 3)))


def abstract_variables():
  """Returns shapes and dtypes of parameters and statistics, without making them."""
  return nn.unbox(jax.eval_shape(lambda: init_variables(jax.random.key(0))))
