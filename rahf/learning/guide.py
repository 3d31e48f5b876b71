"""Guides a Muse by a differentiable score while it draws.

Universal guidance (Bansal et al., 2023) carried over to masked tokens: at every step,
the probabilities of the masked tokens mix their codes into one expected image, whose
score has a gradient with respect to the logits. Along it the logits move before tokens
are sampled.

Axis letters: B batch, H W image size, h w size of the grid of tokens, N = h w, K codes.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt8

from rahf.errors import InputError
from rahf.inference.generator import Generator, noise_keys, to_bytes
from rahf.inference.image_generator import Request, check_request
from rahf.learning.reward import Reward
from rahf.learning.reward_terms import WORDS
from rahf.models import muse as muse_lib
from rahf.models.muse import MuseConfig, SamplingConfig
from rahf.models.muse import generator as model
from rahf.models.muse.autoencoder import Autoencoder
from rahf.models.muse.sampling import sample

Score = Callable[[Float[Array, 'B H W 3']], Float[Array, 'B']]
# A score that does not depend on an image has a gradient of about 0, which stays it.
_EPSILON = 1e-12


def draw_guided(
  config: MuseConfig,
  params: Any,
  prompt: muse_lib.Prompt,
  keys: Key[Array, ' B'],
  *,
  score: Score,
  strength: Float[Array, ''] | float,
  sampling: SamplingConfig,
) -> muse_lib.Generated:
  """Draws an image for each prompt; with a strength of 0 as `generate` does.

  Args:
    keys: one for each image.
    score: of images that may lie a little outside of [0, 1]; higher is better. Each
      depends on its own image alone.
    strength: root mean square of what is added to an image's logits.
  """
  predict = model.guided_logits(config, params, prompt, sampling)
  batch, side = len(prompt.text), config.grid
  mask_id = config.transformer.mask_id

  def steered(tokens: Int[Array, 'B N']) -> Float[Array, 'B N K']:
    logits = predict(tokens.reshape(batch, side, side))
    logits = logits.reshape(batch, side * side, -1)

    def total(logits):
      return score(_expected_image(config, params, logits, tokens)).sum()

    gradient = jax.grad(total)(logits)
    size = jnp.sqrt(jnp.mean(jnp.square(gradient), (1, 2), keepdims=True))
    return logits + strength * gradient / (size + _EPSILON)

  start = jnp.full((batch, side * side), mask_id, jnp.int32)
  found = sample(
    steered,
    start,
    keys,
    config=sampling,
    mask_id=mask_id,
    codes=config.transformer.codebook_size,
  ).reshape(batch, side, side)
  return muse_lib.Generated(model.decode(config, params, found), found)


def _expected_image(
  config: MuseConfig,
  params: Any,
  logits: Float[Array, 'B N K'],
  tokens: Int[Array, 'B N'],
) -> Float[Array, 'B H W 3']:
  """Decodes the mean code of each masked token, and the code of each known one."""
  autoencoder = Autoencoder(config.autoencoder, jnp.dtype(config.dtype))
  variables = {'params': params['autoencoder']}
  codes = autoencoder.apply(variables, method=Autoencoder.codebook)
  known = jax.nn.one_hot(tokens, logits.shape[-1])
  masked = (tokens == config.transformer.mask_id)[..., None]
  latents = jnp.where(masked, jax.nn.softmax(logits), known) @ codes
  latents = latents.reshape(len(tokens), config.grid, config.grid, -1)
  return autoencoder.apply(variables, latents, method=Autoencoder.decode)


class GuidedMuse:
  """A Muse that a reward guides.

  Attributes:
    reward: its weighted sum is the score.
    batch_size: images that are drawn together.
  """

  def __init__(self, generator: Generator, reward: Reward):
    """Compiles at the first call.

    Raises:
      InputError: a term of the reward has no gradient.
    """
    if reward.weights.get(WORDS):
      raise InputError(f'{WORDS} has no gradient and cannot guide; use alignment')
    self._generator, self.reward = generator, reward
    self.batch_size = generator.batch_size

  def draw(
    self, requests: Sequence[Request], strength: float
  ) -> Iterator[UInt8[np.ndarray, 'H W 3']]:
    """Yields the image of each request, in order.

    Args:
      strength: see `draw_guided`.

    Raises:
      InputError: a prompt is missing, a seed is out of range, or the program does not
        fit into memory.
    """
    for request in requests:
      check_request(request)
    shared = self.reward.params, np.float32(strength)
    yield from self._generator.run(self._draw_batch, requests, self._encode, shared)

  def _encode(self, requests: Sequence[Request]) -> tuple[Int[np.ndarray, 'B ...']]:
    return (self.reward.encode([one.prompt for one in requests]),)

  def _draw_batch(
    self,
    params: Any,
    text: Int[Array, 'B T'],
    negative: Int[Array, 'B T'],
    seeds: Int[Array, 'B 2'],
    score_text: Int[Array, 'B ...'],
    reward_params: Any,
    strength: Float[Array, ''],
  ) -> UInt8[Array, 'B H W 3']:
    found = draw_guided(
      self._generator.muse,
      params,
      self._generator.prompt(text, negative),
      noise_keys(seeds),
      score=lambda image: self.reward.differentiable(reward_params, image, score_text),
      strength=strength,
      sampling=self._generator.sampling,
    )
    return to_bytes(found.image)
