"""What the paper compares RAHF with: ResNet-50 and CLIP, each with heads of its own.

They predict scores or maps, never both, and no words. The paper says little of the
heads: fully connected layers for scores, transposed convolutions for maps. The widths
here are ours, except for the transposed convolutions, which are those of
SimpleBaseline (Xiao et al., 2018) until the map is as large as the image.

Axis letters: B batch, H W image size, h w map size, C channels, F features.
"""

import dataclasses
from typing import Annotated

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from rahf.data.schema import MAPS, SCORES
from rahf.fileio.validators import sequence, whole
from rahf.models.clip import CLIP, CLIPConfig, normalised
from rahf.models.layers import dense, partitioned
from rahf.models.resnet import STRIDE, BatchNorm, ResNet, ResNetConfig
from rahf.models.sizes import Widths

Deconvs = Annotated[tuple, sequence(whole(1, 2**17), '(256, 256, 256, 128, 64)')]


@dataclasses.dataclass(frozen=True)
class BaselineHeadConfig:
  """Widths of the heads.

  Attributes:
    dense: hidden fully connected layers of the scores.
    deconvs: transposed convolutions of the maps; each doubles the map, so that five
      make up for the stride of a ResNet.
  """

  dense: Widths = (1024, 512)
  deconvs: Deconvs = (256, 256, 256, 128, 64)


class ResNetScores(nn.Module):
  """Four scores of an image, which never sees the prompt."""

  resnet_config: ResNetConfig
  head: BaselineHeadConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, image: Float[Array, 'B H W 3'], *, train: bool
  ) -> Float[Array, 'B 4']:
    """Returns scores from 0 to 1, higher is better."""
    features = ResNet(self.resnet_config, self.dtype, name='resnet')(image, train=train)
    return ScoreLayers(self.head, self.dtype, name='score_layers')(
      features.mean((1, 2))
    )


class ResNetMaps(nn.Module):
  """Two maps of an image, which never sees the prompt."""

  resnet_config: ResNetConfig
  head: BaselineHeadConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, image: Float[Array, 'B H W 3'], *, train: bool
  ) -> Float[Array, 'B 2 H W']:
    """Returns maps from 0 to 1, higher is worse."""
    x = ResNet(self.resnet_config, self.dtype, name='resnet')(image, train=train)
    for i, features in enumerate(self.head.deconvs):
      x = nn.ConvTranspose(
        features,
        (4, 4),
        (2, 2),
        use_bias=False,
        dtype=self.dtype,
        kernel_init=_readout_init(),
        name=f'deconv_{i}',
      )(x)
      x = nn.relu(BatchNorm(self.dtype, name=f'norm_{i}')(x, train=train))
    x = nn.Conv(
      len(MAPS),
      (1, 1),
      dtype=jnp.float32,
      kernel_init=_readout_init(),
      bias_init=partitioned(nn.initializers.zeros, None),
      name='readout',
    )(x)
    return nn.sigmoid(x).transpose(0, 3, 1, 2)


class ClipScores(nn.Module):
  """Four scores from the features that CLIP has of image and prompt."""

  clip_config: CLIPConfig
  head: BaselineHeadConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, image: Float[Array, 'B H W 3'], text: Int[Array, 'B T'], *, train: bool
  ) -> Float[Array, 'B 4']:
    """Returns scores from 0 to 1, higher is better."""
    del train  # Nothing is dropped.
    clip = CLIP(self.clip_config, name='clip')
    image_features = normalised(clip.image_features(image))
    text_features = normalised(clip.text_features(text))
    # Their product sums up to the cosine, which is what CLIP was trained for.
    features = jnp.concatenate(
      [image_features, text_features, image_features * text_features], -1
    )
    return ScoreLayers(self.head, self.dtype, name='score_layers')(features)


class ScoreLayers(nn.Module):
  """Fully connected layers with ReLU, then a sigmoid for each score."""

  head: BaselineHeadConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, features: Float[Array, 'B F']) -> Float[Array, 'B 4']:
    x = jnp.asarray(features, self.dtype)
    he = nn.initializers.he_normal()
    for i, width in enumerate(self.head.dense):
      layer = dense(
        width, 'embed', 'mlp', init=he, dtype=self.dtype, name=f'hidden_{i}'
      )
      x = nn.relu(layer(x))
    readout = dense(
      len(SCORES),
      'mlp',
      None,
      init=nn.initializers.lecun_normal(),
      dtype=jnp.float32,
      name='readout',
    )
    return nn.sigmoid(readout(x))


def _readout_init() -> nn.initializers.Initializer:
  return partitioned(nn.initializers.normal(1e-3), None, None, 'conv_in', 'conv_out')


def map_side(config: ResNetConfig, head: BaselineHeadConfig, image_size: int) -> int:
  """Returns the side of the maps of an image."""
  del config
  return image_size // STRIDE * 2 ** len(head.deconvs)
