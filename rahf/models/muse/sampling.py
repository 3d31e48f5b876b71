"""Masked sampling (MaskGIT; Chang et al., 2022), as aMUSEd does it.

Every step predicts all masked tokens, keeps the most confident ones, and masks the rest
again, of which there are fewer from step to step.

All randomness of an image comes from its own key, so that the image does not depend on
the others in its batch.

Axis letters: B batch, N tokens of an image, K number of codes, S steps.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from rahf.errors import InputError
from rahf.fileio.validators import one_of, pair, real, whole

SCHEDULES = ('cosine', 'linear')
# No token is less confident, whatever its probability.
LEAST = math.log(1e-20)


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
  """How images are sampled; the defaults are aMUSEd's.

  Attributes:
    steps: number of steps.
    guidance: how far logits move from those of the negative prompt towards those of the
      prompt, and beyond; 1 is the prompt alone, at half the cost.
    temperature: of the noise in the choice of tokens to keep, in the first and in the
      last step.
    schedule: how the share of masked tokens falls from 1 to 0.
    sharpness: multiplies the logits of the codes: above 1, improbable codes become
      rarer than the model thinks.
  """

  steps: Annotated[int, whole(1, 1000)] = 12
  guidance: Annotated[float, real(1, 1000)] = 10.0
  temperature: Annotated[tuple, pair(real(0, 1000), real(0, 1000))] = (2.0, 0.0)
  schedule: Annotated[str, one_of(SCHEDULES)] = 'cosine'
  sharpness: Annotated[float, real(0.01, 1000)] = 1.0


TEXT_TO_IMAGE = SamplingConfig()
INPAINTING = SamplingConfig(schedule='linear')


class Noise(NamedTuple):
  """The randomness of one step: independent draws from Gumbel(0, 1).

  Attributes:
    codes: which code a token becomes.
    order: which tokens are kept.
  """

  codes: Float[Array, '*S B N K']
  order: Float[Array, '*S B N']


class Step(NamedTuple):
  """The result of one step.

  Attributes:
    tokens: masked again where confidence is least.
    guess: without a mask; where the step's input had none, as there.
  """

  tokens: Int[Array, 'B N']
  guess: Int[Array, 'B N']


def masked_shares(schedule: str, steps: int) -> Float[np.ndarray, ' S']:
  """Returns the share of tokens that are masked after each step."""
  # In float32 as the original: numbers of tokens are rounded down from these.
  ratio = np.arange(1, steps + 1, dtype=np.float32) / np.float32(steps)
  if schedule == 'linear':
    return np.float32(1) - ratio
  shares = np.cos(ratio * np.float32(math.pi) / np.float32(2))
  shares[-1] = 0
  return shares


def temperatures(ends: tuple[float, float], steps: int) -> Float[np.ndarray, ' S']:
  """Returns the temperature of each step."""
  return np.linspace(*ends, steps, dtype=np.float32)


def first_step(steps: int, strength: float) -> int:
  """Returns the step with which to start from an image that shall change a part.

  Args:
    strength: the share of the steps to do, above 0 up to 1.

  Raises:
    InputError: there would be no step.
  """
  if not 0 < strength <= 1 or not int(steps * strength):
    raise InputError(
      f'strength is {strength} of {steps} steps; it must be at most 1, and at least '
      f'1/{steps} for one step'
    )
  return steps - int(steps * strength)


def mask_at_random(
  tokens: Int[Array, 'B N'],
  keys: Key[Array, ' B'],
  share: float,
  mask_id: int,
) -> Int[Array, 'B N']:
  """Masks each token with the probability `share`, to start from an image."""
  uniform = jax.vmap(lambda key: jax.random.uniform(key, tokens.shape[1:]))(keys)
  return jnp.where(uniform < share, mask_id, tokens)


def draw_noise(
  keys: Key[Array, ' B'], step: Int[Array, ''], positions: int, codes: int
) -> Noise:
  """Draws the randomness of a step, each image's from its key and the step alone."""

  def draw(key):
    of_codes, of_order = jax.random.split(jax.random.fold_in(key, step))
    return Noise(
      jax.random.gumbel(of_codes, (positions, codes)),
      jax.random.gumbel(of_order, (positions,)),
    )

  return jax.vmap(draw)(keys)


def one_step(
  logits: Float[Array, 'B N K'],
  tokens: Int[Array, 'B N'],
  noise: Noise,
  share: Float[Array, ' B'],
  temperature: Float[Array, ''],
  mask_id: int,
) -> Step:
  """Samples the masked tokens, and masks the least confident ones again.

  Args:
    share: of an image's tokens to be masked after the step. Above 0 it is at least one
      token, and at least one fewer than before if there were several; 0 leaves none.
    temperature: multiplies `noise.order` before it is added to the logarithm of the
      sampled token's probability.
  """
  masked = tokens == mask_id
  sampled = jnp.argmax(logits + noise.codes, -1).astype(tokens.dtype)
  guess = jnp.where(masked, sampled, tokens)

  log_probability = jnp.take_along_axis(
    jax.nn.log_softmax(logits), guess[..., None], -1, mode='clip'
  )[..., 0]
  confidence = jnp.maximum(log_probability, LEAST) + temperature * noise.order
  confidence = jnp.where(masked, confidence, jnp.inf)

  before = masked.sum(-1)
  after = jnp.floor(tokens.shape[1] * share).astype(before.dtype)
  after = jnp.maximum(1, jnp.minimum(after, before - 1))
  after = jnp.where(share > 0, jnp.minimum(after, before), 0)
  bound = jnp.take_along_axis(jnp.sort(confidence), after[:, None], 1, mode='clip')
  return Step(jnp.where(confidence < bound, mask_id, guess), guess)


def sample(
  predict: Callable[[Int[Array, 'B N']], Float[Array, 'B N K']],
  tokens: Int[Array, 'B N'],
  keys: Key[Array, ' B'],
  *,
  config: SamplingConfig,
  mask_id: int,
  codes: int,
  first: int = 0,
  start_share: Float[Array, ' B'] | None = None,
  noise: Noise | None = None,
) -> Int[Array, 'B N']:
  """Replaces all masked tokens, step by step.

  Args:
    predict: returns logits.
    tokens: what to start from.
    keys: one for each image.
    codes: the number K of codes.
    first: number of the first step; more than 0 to start from an image.
    start_share: multiplies the schedule: the share of each image that is masked at the
      start, where the rest shall stay. By default 1.
    noise: to be used instead of the keys, for each step from the first on.
  """
  shares = masked_shares(config.schedule, config.steps)[first:]
  heat = temperatures(config.temperature, config.steps)[first:]
  if start_share is None:
    start_share = jnp.ones(len(tokens))

  def body(tokens, step):
    number, share, temperature, given = step
    if given is None:
      given = draw_noise(keys, number, tokens.shape[1], codes)
    share = start_share * share
    after = one_step(predict(tokens), tokens, given, share, temperature, mask_id)
    return after.tokens, None

  numbers = jnp.arange(first, config.steps)
  return jax.lax.scan(body, tokens, (numbers, shares, heat, noise))[0]
