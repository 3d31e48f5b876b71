"""aMUSEd's autoencoder: images as grids of tokens, and back.

It is a VQ-VAE (van den Oord et al., 2017): a convolutional encoder halves the image at
each stage but the last, a quantiser turns each position into one of K codes, and a
decoder mirrors the encoder.

Axis letters: B batch, H W image size, h w size of a map or of the grid of tokens, C F
channels, D width of a code, K number of codes.
"""

import dataclasses
import functools
import math
from typing import Annotated, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from rahf.fileio.validators import sequence, whole
from rahf.models import layers, upsampling
from rahf.models.layers import partitioned
from rahf.models.muse import quantiser
from rahf.models.sizes import Flag, Width

EPSILON = 1e-6  # Of the norms.


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
  """Sizes of an autoencoder; the defaults are aMUSEd's.

  Attributes:
    widths: channels of each stage.
    blocks: residual blocks of a stage; in the decoder there is one more.
    groups: of the group norms; divides all widths.
    latents: channels between the networks and the quantiser, and the width of a learned
      code.
    codes: number of learned codes.
    levels: of a quantiser that rounds instead (FSQ), one number for each channel of a
      code; () for learned codes.
    patch: side in pixels of the squares that become channels before the first
      convolution, so that a small model convolves at a fraction of the size.
    local: whether the encoder sees each such square alone, so that equal squares are
      equal tokens. Otherwise tokens also tell of what is around them, by convolutions
      and by the norms of the whole image.
  """

  widths: Annotated[tuple, sequence(whole(1, 2**17), '(64, 128)', 1)] = (
    *(128, 256, 256),
    *(512, 768),
  )
  blocks: Annotated[int, whole(0, 1000)] = 2
  groups: Width = 32
  latents: Width = 64
  codes: Annotated[int, whole(2, 2**24)] = 8192
  levels: Annotated[tuple, sequence(whole(2, 2**16), '(8, 5, 5)')] = ()
  patch: Width = 1
  local: Flag = False

  @property
  def side(self) -> int:
    """Side in pixels of the square that a token stands for."""
    return self.patch * 2 ** (len(self.widths) - 1)

  @property
  def codebook_size(self) -> int:
    """The number K of codes."""
    return math.prod(self.levels) if self.levels else self.codes

  @property
  def code_width(self) -> int:
    """The width D of a code."""
    return len(self.levels) or self.latents


class Quantised(NamedTuple):
  """Latents as tokens.

  Attributes:
    tokens: from 0 to K - 1.
    latents: the tokens' codes; their gradient goes to the latents before.
  """

  tokens: Int[Array, 'B h w']
  latents: Float[Array, 'B h w D']


class Reconstruction(NamedTuple):
  """An image that was encoded and decoded, and what the losses need.

  Attributes:
    image: about in [0, 1].
    tokens: from 0 to K - 1.
    latents: before quantising; from -1 to 1 if they are rounded.
    codes: the tokens' codes, with a gradient to a learned codebook.
  """

  image: Float[Array, 'B H W 3']
  tokens: Int[Array, 'B h w']
  latents: Float[Array, 'B h w D']
  codes: Float[Array, 'B h w D']


class Autoencoder(nn.Module):
  """Images in [0, 1] to tokens and back; sizes must be multiples of `config.side`."""

  config: AutoencoderConfig
  dtype: jnp.dtype

  def setup(self):
    config = self.config
    conv = functools.partial(
      layers.conv, dtype=self.dtype, size=1, padding='VALID', axes=(None, None)
    )
    self.encoder = Encoder(config, self.dtype)
    self.quant_conv = conv(config.code_width, name='quant_conv')
    self.post_quant_conv = conv(config.latents, name='post_quant_conv')
    self.decoder = Decoder(config, self.dtype)
    if not config.levels:
      # As the original: smaller than the latents, so that all codes are near at first.
      init = nn.initializers.uniform(2 / config.codes)
      self.code_table = self.param(
        'code_table',
        partitioned(lambda *args: init(*args) - 1 / config.codes, 'vocab', None),
        (config.codes, config.code_width),
      )

  def __call__(self, image: Float[Array, 'B H W 3']) -> Reconstruction:
    """Encodes and decodes; the gradient passes the quantiser straight through."""
    latents = self.encode(image)
    tokens, quantised = self.quantise(latents)
    if self.config.levels:
      latents = jnp.tanh(latents)
    return Reconstruction(self.decode(quantised), tokens, latents, self.lookup(tokens))

  def encode(self, image: Float[Array, 'B H W 3']) -> Float[Array, 'B h w D']:
    """Returns latents, which are not quantised."""
    x = split_patches(image, self.config.patch)
    return jnp.asarray(self.quant_conv(self.encoder(x)), jnp.float32)

  def quantise(self, latents: Float[Array, 'B h w D']) -> Quantised:
    """Returns the nearest code of each latent."""
    if levels := self.config.levels:
      digits = quantiser.fsq_digits(latents, levels)
      tokens, latents = quantiser.fsq_token(digits, levels), jnp.tanh(latents)
    else:
      tokens = quantiser.nearest(latents, self.codebook())
    codes = self.lookup(tokens)
    return Quantised(tokens, quantiser.straight_through(latents, codes))

  def tokens(self, image: Float[Array, 'B H W 3']) -> Int[Array, 'B h w']:
    """Returns the tokens of images."""
    return self.quantise(self.encode(image)).tokens

  def decode(self, latents: Float[Array, 'B h w D']) -> Float[Array, 'B H W 3']:
    """Returns the image of quantised latents, or of mixtures of codes.

    It is about in [0, 1], and not clipped.
    """
    x = self.decoder(self.post_quant_conv(latents))
    return join_patches(jnp.asarray(x, jnp.float32), self.config.patch)

  def decode_tokens(self, tokens: Int[Array, 'B h w']) -> Float[Array, 'B H W 3']:
    """Returns the image of tokens; as `decode`."""
    return self.decode(self.lookup(tokens))

  def lookup(self, tokens: Int[Array, '*N']) -> Float[Array, '*N D']:
    """Returns the codes of tokens."""
    if levels := self.config.levels:
      return quantiser.fsq_code(tokens, levels)
    return self.codebook()[tokens]

  def codebook(self) -> Float[Array, 'K D']:
    """Returns all codes."""
    if levels := self.config.levels:
      return quantiser.fsq_code(jnp.arange(self.config.codebook_size), levels)
    return jnp.asarray(self.code_table, jnp.float32)


class Encoder(nn.Module):
  """Stages of residual blocks, each at half the size of the one before."""

  config: AutoencoderConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'B H W C']) -> Float[Array, 'B h w F']:
    config = self.config
    size = 1 if config.local else 3
    groups = 0 if config.local else config.groups
    conv = functools.partial(layers.conv, dtype=self.dtype)
    block = functools.partial(ResidualBlock, groups=groups, dtype=self.dtype, size=size)
    x = conv(config.widths[0], size=size, axes=(None, 'conv_out'), name='conv_in')(x)
    for stage, width in enumerate(config.widths):
      for i in range(config.blocks):
        x = block(width, name=f'stage{stage}_block{i}')(x)
      if stage < len(config.widths) - 1:
        # Padded on one side only, as the original.
        halve = conv(
          width, stride=2, padding=((0, 1), (0, 1)), name=f'stage{stage}_halve'
        )
        x = halve(x)
    for i in range(2):
      x = block(width, name=f'mid_block{i}')(x)
    x = nn.silu(norm(groups, self.dtype, 'norm_out')(x))
    return conv(config.latents, size=size, axes=('conv_in', None), name='conv_out')(x)


class Decoder(nn.Module):
  """The encoder's mirror image."""

  config: AutoencoderConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'B h w F']) -> Float[Array, 'B H W C']:
    config = self.config
    conv = functools.partial(layers.conv, dtype=self.dtype)
    block = functools.partial(ResidualBlock, groups=config.groups, dtype=self.dtype)
    widths = config.widths[::-1]
    x = conv(widths[0], axes=(None, 'conv_out'), name='conv_in')(x)
    for i in range(2):
      x = block(widths[0], name=f'mid_block{i}')(x)
    for stage, width in enumerate(widths):
      for i in range(config.blocks + 1):
        x = block(width, name=f'stage{stage}_block{i}')(x)
      if stage < len(widths) - 1:
        x = RepeatConv(width, self.dtype, name=f'stage{stage}_double')(x)
    x = nn.silu(norm(config.groups, self.dtype, 'norm_out')(x))
    # Begins near mid-grey. Noise of variance 1, as of other layers, takes a small model
    # hundreds of steps to unlearn, in which it neglects colours.
    return conv(
      3 * config.patch**2,
      axes=('conv_in', None),
      init=nn.initializers.normal(1e-3),
      bias_init=nn.initializers.constant(0.5),
      name='conv_out',
    )(x)


class ResidualBlock(nn.Module):
  """Two convolutions with norms before them, added to the input."""

  width: int
  groups: int
  dtype: jnp.dtype
  size: int = 3

  @nn.compact
  def __call__(self, x: Float[Array, 'B h w C']) -> Float[Array, 'B h w F']:
    conv = functools.partial(layers.conv, self.width, dtype=self.dtype)
    y = nn.silu(norm(self.groups, self.dtype, 'norm1')(x))
    y = conv(size=self.size, name='conv1')(y)
    y = nn.silu(norm(self.groups, self.dtype, 'norm2')(y))
    y = conv(size=self.size, name='conv2')(y)
    if x.shape[-1] != self.width:
      x = conv(size=1, name='shortcut')(x)
    return x + y


class RepeatConv(nn.Module):
  """Repeats rows and columns twice, then convolves with a 3x3 kernel.

  The two together are a 4x4 transposed convolution: an even output row reads the input
  row above with the first tap and its own with the two others, an odd row its own with
  the first two and the row below with the last. It takes 4/9 of the products, and
  writes no enlarged map.
  """

  width: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'B h w C']) -> Float[Array, 'B 2*h 2*w F']:
    kernel = self.param(
      'kernel',
      partitioned(nn.initializers.he_normal(), None, None, 'conv_in', 'conv_out'),
      (3, 3, x.shape[-1], self.width),
    )
    bias = self.param(
      'bias', partitioned(nn.initializers.zeros, 'conv_out'), (self.width,)
    )
    for axis in (0, 1):
      one_more = [(0, 0)] * 4
      one_more[axis] = (0, 1)
      late = [(0, 0)] * 4
      late[axis] = (1, 0)
      kernel = jnp.pad(kernel, one_more) + jnp.pad(kernel, late)
    x, kernel, bias = (jnp.asarray(array, self.dtype) for array in (x, kernel, bias))
    return upsampling.double(x, kernel) + bias


def norm(groups: int, dtype: jnp.dtype, name: str) -> nn.Module:
  """Returns a norm over pixels and groups of channels; statistics are float32.

  Args:
    groups: their number; 0 for a norm over the channels of each pixel alone.
  """
  options = {
    'epsilon': EPSILON,
    'dtype': dtype,
    'scale_init': partitioned(nn.initializers.ones, 'conv_out'),
    'bias_init': partitioned(nn.initializers.zeros, 'conv_out'),
    'name': name,
  }
  return nn.GroupNorm(groups, **options) if groups else nn.LayerNorm(**options)


def split_patches(
  image: Float[Array, 'B H W C'], patch: int
) -> Float[Array, 'B h w F']:
  """Makes the pixels of each square of side `patch` one position's channels."""
  batch, height, width, channels = image.shape
  x = image.reshape(batch, height // patch, patch, width // patch, patch, channels)
  return x.swapaxes(2, 3).reshape(batch, height // patch, width // patch, -1)


def join_patches(x: Float[Array, 'B h w F'], patch: int) -> Float[Array, 'B H W C']:
  """Undoes `split_patches`."""
  batch, height, width, _ = x.shape
  x = x.reshape(batch, height, width, patch, patch, -1).swapaxes(2, 3)
  return x.reshape(batch, height * patch, width * patch, -1)
