"""CLIP (Radford et al., 2021): images and texts in a shared embedding space.

Both towers are stacks of the ViT's blocks. Sizes are listed in `SIZES`; the number of
heads does not follow from them.

Axis letters: B batch, N image tokens, T text tokens, D width, E width of the space.
"""

import dataclasses
import typing
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from rahf.fileio.validators import one_of, real
from rahf.models import cpu_kernels, layers
from rahf.models.layers import partitioned
from rahf.models.sizes import DTYPES, Layers, Side, Width
from rahf.models.vit import Block, layer_norm

# Of pixels in [0, 1], with which OpenAI and most others trained.
MEAN = np.array((0.48145466, 0.4578275, 0.40821073), np.float32)
STD = np.array((0.26862954, 0.26130258, 0.27577711), np.float32)
# Of a model that starts from nothing: the logarithm of 1 / .07.
INITIAL_LOGIT_SCALE = 2.6592600


@dataclasses.dataclass(frozen=True)
class TowerConfig:
  """Sizes of one stack of blocks.

  Attributes:
    gelu: 'quick' is x * sigmoid(1.702 x), of OpenAI's models; 'exact' that of the
      models trained on LAION, PickScore among them.
  """

  width: Width = 768
  layers: Layers = 12
  heads: Width = 12
  mlp: Width = 3072
  gelu: Annotated[str, one_of(('quick', 'exact', 'tanh'))] = 'quick'
  norm_epsilon: Annotated[float, real(1e-30, 1)] = 1e-5


@dataclasses.dataclass(frozen=True)
class CLIPConfig:
  """Sizes of a CLIP; the defaults are OpenAI's ViT-B/32.

  Attributes:
    image_size, patch: sides in pixels.
    vocab_size: the last token is the end of a text.
    text_length: the longest text in tokens, its start and end included.
    projection: width E of the space that image and text share.
  """

  image_size: Side = 224
  patch: Side = 32
  vision: TowerConfig = TowerConfig()
  text: TowerConfig = TowerConfig(width=512, heads=8, mlp=2048)
  text_length: Width = 77
  vocab_size: Width = 49408
  projection: Width = 512
  dtype: Annotated[str, one_of(DTYPES)] = 'float32'


@typing.runtime_checkable
class TextSizes(typing.Protocol):
  """Settings of a text tower; a CLIP has them among others."""

  text: TowerConfig
  text_length: int
  vocab_size: int
  projection: int


class TextFeatures(NamedTuple):
  """What a text tower reads in a text.

  Attributes:
    pooled: the text as a point of the space that it shares with images.
    hidden: each token before the last block, without a norm; those after the end of
      the text, too.
  """

  pooled: Float[Array, 'B E']
  hidden: Float[Array, 'B T D']


class CLIP(nn.Module):
  """Embeds images and texts; neither vector is normalised."""

  config: CLIPConfig

  def setup(self):
    dtype = jnp.dtype(self.config.dtype)
    self.vision = VisionTower(self.config, dtype)
    self.text = TextTower(self.config, dtype)
    self.logit_scale = self.param(
      'logit_scale', partitioned(nn.initializers.constant(INITIAL_LOGIT_SCALE)), ()
    )

  def __call__(
    self, image: Float[Array, 'B H W 3'], text: Int[Array, 'C T']
  ) -> Float[Array, 'B C']:
    """Returns the logits of each image for each text.

    These are cosines, multiplied by the exponential of `logit_scale`.
    """
    image_features = normalised(self.image_features(image))
    text_features = normalised(self.text_features(text))
    return self._scale() * image_features @ text_features.T

  def similarity(
    self, image: Float[Array, 'B H W 3'], text: Int[Array, 'B T']
  ) -> Float[Array, 'B']:
    """Returns the logit of each image for its own text."""
    image_features = normalised(self.image_features(image))
    text_features = normalised(self.text_features(text))
    return self._scale() * jnp.sum(image_features * text_features, -1)

  def _scale(self) -> Float[Array, '']:
    return jnp.exp(jnp.asarray(self.logit_scale, jnp.float32))

  def image_features(self, image: Float[Array, 'B H W 3']) -> Float[Array, 'B E']:
    """Embeds images, normalised as `data.images.clip_image` does."""
    return self.vision(image)

  def text_features(self, text: Int[Array, 'B T']) -> Float[Array, 'B E']:
    """Embeds texts of tokens, as `data.clip_tokenizer` makes them."""
    return self.text(text).pooled


class VisionTower(nn.Module):
  """A ViT that is read at its class token."""

  config: CLIPConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, image: Float[Array, 'B H W 3']) -> Float[Array, 'B E']:
    config, tower = self.config, self.config.vision
    x = nn.Conv(
      tower.width,
      (config.patch, config.patch),
      (config.patch, config.patch),
      'VALID',
      use_bias=False,
      dtype=self.dtype,
      conv_general_dilated=cpu_kernels.embed_patches,
      kernel_init=partitioned(nn.initializers.normal(0.02), None, None, None, 'embed'),
      name='embedding',
    )(image)
    x = x.reshape(len(x), -1, tower.width)
    normal = nn.initializers.normal(tower.width**-0.5)
    cls = self.param('cls', partitioned(normal, 'embed'), (tower.width,))
    cls = jnp.broadcast_to(jnp.asarray(cls, self.dtype), (len(x), 1, tower.width))
    x = jnp.concatenate([cls, x], 1)
    positions = self.param(
      'positions', partitioned(normal, None, 'embed'), (x.shape[1], tower.width)
    )
    x = x + jnp.asarray(positions, self.dtype)
    x = layer_norm(tower, self.dtype, 'pre_norm')(x)
    x = _blocks(tower, self.dtype, x)
    x = layer_norm(tower, self.dtype, 'post_norm')(x[:, 0])
    return _projection(config.projection, tower.width, self.dtype)(x)


class TextTower(nn.Module):
  """A causal transformer that is read at the first end token.

  What comes after it does not matter, so that any padding will do. A text without an
  end token gives NaN: OpenAI's code would read its start token.
  """

  config: TextSizes
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, text: Int[Array, 'B T']) -> TextFeatures:
    config, tower = self.config, self.config.text
    embedding = self.param(
      'embedding',
      partitioned(nn.initializers.normal(0.02), 'vocab', 'embed'),
      (config.vocab_size, tower.width),
    )
    positions = self.param(
      'positions',
      partitioned(nn.initializers.normal(0.01), None, 'embed'),
      (config.text_length, tower.width),
    )
    length = text.shape[1]
    x = jnp.asarray(embedding, self.dtype)[text]
    x = x + jnp.asarray(positions, self.dtype)[:length]
    causal = jnp.tril(jnp.ones((1, 1, length, length), bool))
    hidden = _blocks(tower, self.dtype, x, causal, stop=tower.layers - 1)
    x = _blocks(tower, self.dtype, hidden, causal, start=tower.layers - 1)
    x = layer_norm(tower, self.dtype, 'final_norm')(x)
    is_end = text == config.vocab_size - 1
    first = jnp.argmax(is_end, axis=1)
    x = jnp.take_along_axis(x, first[:, None, None], axis=1)[:, 0]
    x = jnp.where(is_end.any(1, keepdims=True), x, jnp.nan)
    pooled = _projection(config.projection, tower.width, self.dtype)(x)
    return TextFeatures(pooled, hidden)


def _blocks(
  tower: TowerConfig,
  dtype: jnp.dtype,
  x: Array,
  mask: Array | None = None,
  start: int = 0,
  stop: int | None = None,
) -> Array:
  """Applies the blocks from `start` to before `stop`, by default all."""
  for i in range(start, tower.layers if stop is None else stop):
    x = Block(tower, 0.0, dtype, name=f'block_{i}')(x, train=False, mask=mask)
    x = layers.constrain_batch(x)
  return x


def _projection(features: int, width: int, dtype: jnp.dtype) -> nn.Dense:
  return layers.dense(
    features,
    'embed',
    None,
    init=nn.initializers.normal(width**-0.5),
    bias_init=None,
    dtype=dtype,
    name='projection',
  )


def normalised(features: Float[Array, '*B E']) -> Float[Array, '*B E']:
  """Scales vectors to length 1, in float32."""
  features = jnp.asarray(features, jnp.float32)
  return features / jnp.linalg.norm(features, axis=-1, keepdims=True)


def _openai(
  patch: int, vision: TowerConfig, text_width: int, image_size: int = 224
) -> CLIPConfig:
  text = TowerConfig(text_width, 12, text_width // 64, 4 * text_width)
  return CLIPConfig(image_size, patch, vision, text, projection=text_width)


_LARGE = TowerConfig(1024, 24, 16, 4096)
# The published sizes by name. Laion's B/32, B/16 and L/14 have the exact GELU.
SIZES = {
  'B/32': _openai(32, TowerConfig(), 512),
  'B/16': _openai(16, TowerConfig(), 512),
  'L/14': _openai(14, _LARGE, 768),
  'L/14@336': _openai(14, _LARGE, 768, 336),
  'H/14': CLIPConfig(
    patch=14,
    vision=TowerConfig(1280, 32, 16, 5120, 'exact'),  # Heads of width 80, not 64.
    text=TowerConfig(1024, 24, 16, 4096, 'exact'),
    projection=1024,
  ),
}


def init_params(config: CLIPConfig, key: Array):
  """Makes a model's parameters, boxed with their logical axes."""
  image = jnp.zeros((1, config.image_size, config.image_size, 3))
  text = jnp.full((1, 1), config.vocab_size - 1)
  return CLIP(config).init(key, image, text)['params']


def abstract_params(config: CLIPConfig):
  """Returns shapes and dtypes of a model's parameters, without making them."""
  return nn.unbox(jax.eval_shape(lambda: init_params(config, jax.random.key(0))))
