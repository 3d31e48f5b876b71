"""A Muse: text to image, image to image, and inpainting (Chang et al., 2023).

It is aMUSEd (Patil et al., 2024): an autoencoder, a transformer of its tokens, and
CLIP's text encoder.

Axis letters: B batch, H W image size, h w size of the grid of tokens, T text tokens,
N = h w.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Key

from rahf.models import layers
from rahf.models.clip import TextFeatures, TextTower
from rahf.models.muse.autoencoder import Autoencoder
from rahf.models.muse.config import MuseConfig, check_config
from rahf.models.muse.sampling import (
  INPAINTING,
  TEXT_TO_IMAGE,
  Noise,
  SamplingConfig,
  first_step,
  mask_at_random,
  masked_shares,
  sample,
)
from rahf.models.muse.text import fill_up
from rahf.models.muse.transformer import CONDITIONS, Transformer

AESTHETIC = 6.0  # The score that aMUSEd aims at by default, of 10.


class Prompt(NamedTuple):
  """What to draw.

  Attributes:
    text: the prompt's tokens.
    negative: tokens of the text that guidance leads away from, usually of the empty
      one; for all images the same if there is only one.
    micro: see `micro_conditions`.
    bias: added to the logits of attention to each token of the text, see
      `transformer.Transformer`; None for none.
  """

  text: Int[Array, 'B T']
  negative: Int[Array, '#B T']
  micro: Float[Array, 'B 5']
  bias: Float[Array, 'B T'] | None = None


class Generated(NamedTuple):
  """Images, in [0, 1], and their tokens."""

  image: Float[Array, 'B H W 3']
  tokens: Int[Array, 'B h w']


def micro_conditions(
  batch: int,
  width: int,
  height: int,
  crop: tuple[int, int] = (0, 0),
  aesthetic: float = AESTHETIC,
) -> Float[Array, 'B 5']:
  """Returns what aMUSEd is told of each image beside its text.

  Args:
    width, height: in pixels.
    crop: the corner of the part that the image shows of a larger one.
    aesthetic: score of an aesthetics model, from 1 to 10.
  """
  return jnp.tile(jnp.array([width, height, *crop, aesthetic], jnp.float32), (batch, 1))


def _autoencoder(config: MuseConfig) -> Autoencoder:
  return Autoencoder(config.autoencoder, jnp.dtype(config.dtype))


def _transformer(config: MuseConfig) -> Transformer:
  return Transformer(config.transformer, jnp.dtype(config.dtype))


def _text(config: MuseConfig) -> TextTower:
  return TextTower(config.text, jnp.dtype(config.dtype))


def init_params(config: MuseConfig, key: Array) -> dict[str, Any]:
  """Makes a model's parameters, boxed with their logical axes.

  Raises:
    InputError: see `check_config`.
  """
  check_config(config)
  side, text = config.autoencoder.side, config.text
  keys = jax.random.split(key, 3)
  parts = {
    'autoencoder': _autoencoder(config).init(keys[0], jnp.zeros((1, side, side, 3))),
    'transformer': _transformer(config).init(
      keys[1],
      jnp.zeros((1, 2, 2), jnp.int32),
      jnp.zeros((1, 1, text.text.width)),
      jnp.zeros((1, text.projection)),
      jnp.zeros((1, CONDITIONS)),
      train=False,
    ),
    'text': _text(config).init(keys[2], jnp.full((1, 1), text.vocab_size - 1)),
  }
  return {name: variables['params'] for name, variables in parts.items()}


def abstract_params(config: MuseConfig) -> dict[str, Any]:
  """Returns shapes and dtypes of a model's parameters, without making them."""
  return nn.unbox(jax.eval_shape(lambda: init_params(config, jax.random.key(0))))


def encode_text(
  config: MuseConfig, params: Any, text: Int[Array, 'B T']
) -> TextFeatures:
  """Returns what the transformer reads of texts."""
  text = fill_up(config.text, text)
  return _text(config).apply({'params': params['text']}, text)


def encode(
  config: MuseConfig, params: Any, image: Float[Array, 'B H W 3']
) -> Int[Array, 'B h w']:
  """Returns the tokens of images in [0, 1]."""
  variables = {'params': params['autoencoder']}
  return _autoencoder(config).apply(variables, image, method=Autoencoder.tokens)


def decode(
  config: MuseConfig, params: Any, tokens: Int[Array, 'B h w']
) -> Float[Array, 'B H W 3']:
  """Returns the images of tokens, in [0, 1]."""
  variables = {'params': params['autoencoder']}
  image = _autoencoder(config).apply(
    variables, tokens, method=Autoencoder.decode_tokens
  )
  return jnp.clip(image, 0, 1)


def mask_tokens(mask: Bool[Array, 'B H W'], side: int) -> Bool[Array, 'B h w']:
  """Returns which tokens a mask of pixels touches, if only at one pixel.

  Args:
    side: of a token in pixels, `AutoencoderConfig.side`.
  """
  batch, height, width = mask.shape
  squares = mask.reshape(batch, height // side, side, width // side, side)
  return squares.any((2, 4))


def guided_logits(
  config: MuseConfig, params: Any, prompt: Prompt, sampling: SamplingConfig
) -> Callable[[Int[Array, 'B h w']], Float[Array, 'B h w K']]:
  """Reads a prompt, and returns the function from tokens to logits.

  Args:
    sampling: its guidance and sharpness.
  """
  guidance = sampling.guidance
  features = encode_text(config, params, prompt.text)
  micro, bias = prompt.micro, prompt.bias
  if guidance > 1:
    negative = encode_text(config, params, prompt.negative)
    features = TextFeatures(
      *(
        jnp.concatenate([jnp.broadcast_to(one, two.shape), two])
        for one, two in zip(negative, features, strict=True)
      )
    )
    micro = jnp.concatenate([micro, micro])
    bias = None if bias is None else jnp.concatenate([jnp.zeros_like(bias), bias])
  model, variables = _transformer(config), {'params': params['transformer']}

  def predict(tokens):
    if guidance > 1:
      tokens = jnp.concatenate([tokens, tokens])
    logits = model.apply(
      variables, tokens, features.hidden, features.pooled, micro, bias, train=False
    )
    if guidance > 1:
      away, towards = jnp.split(logits, 2)
      logits = away + guidance * (towards - away)
    return sampling.sharpness * logits

  return predict


@functools.partial(jax.jit, static_argnames=('config', 'sampling', 'first'))
def complete(
  config: MuseConfig,
  params: Any,
  prompt: Prompt,
  tokens: Int[Array, 'B h w'],
  keys: Key[Array, ' B'],
  *,
  sampling: SamplingConfig = TEXT_TO_IMAGE,
  first: int = 0,
  start_share: Float[Array, ' B'] | None = None,
  noise: Noise | None = None,
) -> Generated:
  """Replaces the masked tokens of images; the other arguments are as in `sample`."""
  predict = guided_logits(config, params, prompt, sampling)
  grid = tokens.shape

  def predict_flat(tokens):
    logits = predict(tokens.reshape(grid))
    return logits.reshape(grid[0], -1, logits.shape[-1])

  found = sample(
    predict_flat,
    layers.constrain_batch(tokens.reshape(grid[0], -1)),
    keys,
    config=sampling,
    mask_id=config.transformer.mask_id,
    codes=config.transformer.codebook_size,
    first=first,
    start_share=start_share,
    noise=noise,
  ).reshape(grid)
  return Generated(decode(config, params, found), found)


@functools.partial(jax.jit, static_argnames=('config', 'sampling'))
def generate(
  config: MuseConfig,
  params: Any,
  prompt: Prompt,
  keys: Key[Array, ' B'],
  *,
  sampling: SamplingConfig = TEXT_TO_IMAGE,
  noise: Noise | None = None,
) -> Generated:
  """Draws an image for each prompt.

  Args:
    keys: one for each image, on which with its prompt alone it depends.
    noise: see `sample`.
  """
  shape = (len(prompt.text), config.grid, config.grid)
  tokens = jnp.full(shape, config.transformer.mask_id, jnp.int32)
  return complete(config, params, prompt, tokens, keys, sampling=sampling, noise=noise)


@functools.partial(jax.jit, static_argnames=('config', 'sampling', 'strength'))
def image_to_image(
  config: MuseConfig,
  params: Any,
  prompt: Prompt,
  image: Float[Array, 'B H W 3'],
  keys: Key[Array, ' B'],
  *,
  strength: float = 0.5,
  sampling: SamplingConfig = TEXT_TO_IMAGE,
) -> Generated:
  """Draws images like given ones.

  As many tokens are masked at random as would be after the steps that are left out.

  Args:
    image: in [0, 1].
    strength: the share of the steps that are done; 1 leaves nothing of the image.

  Raises:
    InputError: see `first_step`.
  """
  steps, mask_id = sampling.steps, config.transformer.mask_id
  first = first_step(steps, strength)
  share = masked_shares(sampling.schedule, steps)[first - 1] if first else 1.0
  tokens = encode(config, params, image)
  # The steps' keys are folded with 0 to steps - 1.
  start_keys = jax.vmap(lambda key: jax.random.fold_in(key, steps))(keys)
  start = mask_at_random(
    tokens.reshape(len(tokens), -1), start_keys, float(share), mask_id
  )
  start = start.reshape(tokens.shape)
  return complete(config, params, prompt, start, keys, sampling=sampling, first=first)


@functools.partial(jax.jit, static_argnames=('config', 'sampling', 'strength'))
def inpaint(
  config: MuseConfig,
  params: Any,
  prompt: Prompt,
  image: Float[Array, 'B H W 3'],
  mask: Bool[Array, 'B H W'],
  keys: Key[Array, ' B'],
  *,
  strength: float = 1.0,
  sampling: SamplingConfig = INPAINTING,
  noise: Noise | None = None,
) -> Generated:
  """Draws parts of images anew.

  A token is drawn anew if the mask touches it. Outside of the mask the image stays as
  it was, bit for bit.

  Args:
    image: in [0, 1].
    mask: True where it shall change.
    strength: the share of the steps that are done.
    sampling: aMUSEd's schedule is linear here.
    noise: see `sample`.

  Raises:
    InputError: see `first_step`.
  """
  masked = mask_tokens(mask, config.autoencoder.side)
  tokens = encode(config, params, image)
  start = jnp.where(masked, config.transformer.mask_id, tokens)
  found = complete(
    config,
    params,
    prompt,
    start,
    keys,
    sampling=sampling,
    first=first_step(sampling.steps, strength),
    start_share=masked.mean((1, 2), dtype=jnp.float32),
    noise=noise,
  )
  return Generated(jnp.where(mask[..., None], found.image, image), found.tokens)
