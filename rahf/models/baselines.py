"""The models that the paper compares RAHF with (tables 1 to 3).

A ResNet-50 with heads for scores or for maps, a CLIP with a head for scores, and a CLIP
as it is. None predicts everything, and no ResNet sees the prompt. The paper says little
about the heads: fully connected layers for scores, deconvolutions for maps. Their
widths here are ours; the deconvolutions are those of SimpleBaseline (Xiao et al.,
2018), up to the image's size.

Axis letters: B batch, H W image size, h w map size, C D channels, T text tokens.
"""

import dataclasses
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from rahf.fileio.validators import one_of, sequence
from rahf.models import cpu_kernels
from rahf.models.clip import CLIP, CLIPConfig, normalised
from rahf.models.heads import READOUT_BIAS
from rahf.models.layers import dense, partitioned
from rahf.models.rahf import MAPS, SCORES, Outputs
from rahf.models.resnet import BatchNorm, ResNet, ResNetConfig
from rahf.models.sizes import Widths
from rahf.models.upsampling import Deconv4x4

GRADIENTS = ('input_gradient', 'signed', 'grad_cam', 'grad_eclip')


class Kind(NamedTuple):
  """What a kind of baseline is made from and predicts.

  Attributes:
    weights: the field of `config.init` with its pretrained weights.
    maps, scores: names of what it predicts.
    words: whether it predicts misaligned words.
    trains: whether it is trained on the labels.
  """

  weights: str
  maps: tuple[str, ...] = ()
  scores: tuple[str, ...] = ()
  words: bool = False
  trains: bool = False


KINDS = {
  'resnet_scores': Kind('resnet', scores=SCORES, trains=True),
  'resnet_maps': Kind('resnet', maps=MAPS, trains=True),
  'clip_scores': Kind('clip', scores=SCORES, trains=True),
  'clip_zero_shot': Kind('clip', scores=SCORES),
  'clip_gradient': Kind('clip', maps=('misalignment',)),
  'clip_words': Kind('clip', words=True),
}


class WordRelevance(NamedTuple):
  """Outputs of 'clip_words': how much each token speaks for the image."""

  tokens: Float[Array, 'B T']


@dataclasses.dataclass(frozen=True)
class BaselineConfig:
  """The kind of baseline and its layers; the defaults are the paper's, if known.

  Attributes:
    kind: 'resnet_scores', 'resnet_maps' and 'clip_scores' are trained; the others are
      not. 'clip_zero_shot' takes the cosine of image and prompt as a score,
      'clip_gradient' the gradient of this cosine as the misalignment map, 'clip_words'
      its gradient in the text tower as the misaligned words.
    dense: hidden fully connected layers of the scores.
    deconvs: deconvolutions of the maps; each doubles the size, so that five make up for
      the ResNet's stride.
    scores: the scores that the cosine of 'clip_zero_shot' is compared with.
    gradient: kind of map, see `models/clip_maps.py`.
  """

  kind: Annotated[str, one_of(tuple(KINDS))] = 'resnet_scores'
  dense: Widths = (1024, 512)
  deconvs: Widths = (256, 256, 256, 128, 64)
  scores: Annotated[tuple, sequence(one_of(SCORES), "('alignment',)", 1)] = (
    'alignment',
  )
  gradient: Annotated[str, one_of(GRADIENTS)] = 'input_gradient'


class ResNetScores(nn.Module):
  """Four scores of an image."""

  resnet_config: ResNetConfig
  config: BaselineConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, image: Float[Array, 'B H W 3'], text: Int[Array, 'B T'], *, train: bool
  ) -> Outputs:
    """Predicts scores in [0, 1], higher is better; ignores the text."""
    del text
    features = ResNet(self.resnet_config, self.dtype, name='resnet')(image, train=train)
    layers = ScoreLayers(self.config.dense, self.dtype, name='score_layers')
    return Outputs(scores=layers(features.mean((1, 2))))


class ResNetMaps(nn.Module):
  """Both maps of an image."""

  resnet_config: ResNetConfig
  config: BaselineConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, image: Float[Array, 'B H W 3'], text: Int[Array, 'B T'], *, train: bool
  ) -> Outputs:
    """Predicts maps in [0, 1], higher is worse; ignores the text."""
    del text
    x = ResNet(self.resnet_config, self.dtype, name='resnet')(image, train=train)
    for i, features in enumerate(self.config.deconvs):
      x = Deconv4x4(features, self.dtype, _small_normal(), name=f'deconv_{i}')(x)
      x = nn.relu(BatchNorm(self.dtype, name=f'deconv_{i}_norm')(x, train=train))
    x = nn.Conv(
      len(MAPS),
      (1, 1),
      dtype=jnp.float32,
      conv_general_dilated=cpu_kernels.convolve,
      kernel_init=_small_normal(None),
      bias_init=partitioned(nn.initializers.constant(READOUT_BIAS), None),
      name='readout',
    )(x)
    maps = nn.sigmoid(x).transpose(0, 3, 1, 2)
    size = *maps.shape[:2], *image.shape[1:3]
    if maps.shape != size:
      maps = jax.image.resize(maps, size, 'bilinear')
    return Outputs(maps=maps)


class ClipScores(nn.Module):
  """Four scores from CLIP's features of image and prompt."""

  clip_config: CLIPConfig
  config: BaselineConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, image: Float[Array, 'B H W 3'], text: Int[Array, 'B T'], *, train: bool
  ) -> Outputs:
    """Predicts scores in [0, 1], higher is better."""
    del train  # CLIP has no dropout.
    clip = CLIP(self.clip_config, name='clip')
    image_features = normalised(clip.image_features(image))
    text_features = normalised(clip.text_features(text))
    # The products sum up to the cosine, which CLIP was trained for.
    products = image_features * text_features
    features = jnp.concatenate([image_features, text_features, products], -1)
    layers = ScoreLayers(self.config.dense, self.dtype, name='score_layers')
    return Outputs(scores=layers(features))


class ClipAlone(nn.Module):
  """The cosine of image and prompt in the place of every score."""

  clip_config: CLIPConfig

  @nn.compact
  def __call__(
    self, image: Float[Array, 'B H W 3'], text: Int[Array, 'B T'], *, train: bool
  ) -> Outputs:
    """Returns the cosine, in [-1, 1], higher is better."""
    del train
    cosines = cosine(CLIP(self.clip_config, name='clip'), image, text)
    return Outputs(scores=jnp.tile(cosines[:, None], len(SCORES)))


def cosine(
  clip: CLIP, image: Float[Array, 'B H W 3'], text: Int[Array, 'B T']
) -> Float[Array, 'B']:
  """Returns the cosine of each image and its text."""
  image_features = normalised(clip.image_features(image))
  return jnp.sum(image_features * normalised(clip.text_features(text)), -1)


class ScoreLayers(nn.Module):
  """Fully connected layers with ReLU, then a sigmoid for each score."""

  widths: tuple[int, ...]
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, features: Float[Array, 'B D']) -> Float[Array, 'B 4']:
    x = jnp.asarray(features, self.dtype)
    for i, width in enumerate(self.widths):
      x = dense(
        width,
        None,
        'mlp',
        init=nn.initializers.he_normal(),
        dtype=self.dtype,
        name=f'hidden_{i}',
      )(x)
      x = nn.relu(x)
    readout = dense(
      len(SCORES),
      None,
      None,
      init=nn.initializers.lecun_normal(),
      dtype=jnp.dtype('float32'),
      name='readout',
    )
    return nn.sigmoid(readout(jnp.asarray(x, jnp.float32)))


def _small_normal(outputs: str | None = 'conv_out') -> nn.initializers.Initializer:
  return partitioned(nn.initializers.normal(1e-3), None, None, 'conv_in', outputs)
