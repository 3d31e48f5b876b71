"""Policy gradients of a masked-token model, with rewards of images or of tokens (GRPO).

An image is drawn in a random order, which does not depend on the model. Then its
probability is exactly the product over all tokens of the probability of each, given
those that were drawn before. (In the usual order, confident tokens first, the order
itself depends on the model.) Images are compared with others of the same prompt, their
group (Shao et al., 2024).

Axis letters: B images, P prompts, G images of a prompt, N tokens, K codes, S steps,
h w size of the grid of tokens, H W size of a map.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from rahf.errors import InputError
from rahf.models.muse.sampling import SamplingConfig, masked_shares

Predict = Callable[[Int[Array, 'B N']], Float[Array, 'B N K']]
# Added to a group's standard deviation: rewards that differ by less count as equal.
_EPSILON = 1e-4


class Drawn(NamedTuple):
  """Images as tokens, and the step in which each token was drawn."""

  tokens: Int[Array, 'B N']
  step: Int[Array, 'B N']


class Likelihood(NamedTuple):
  """How probable the tokens are, each given those drawn before it.

  Attributes:
    log_probability: of each token, in nats.
    divergence: from the other model to this one, in nats: the Kullback-Leibler
      divergence of all codes at each token.
  """

  log_probability: Float[Array, 'B N']
  divergence: Float[Array, 'B N']


def step_of_rank(config: SamplingConfig, positions: int) -> Int[np.ndarray, 'N']:
  """Returns the step in which the first token in the order is drawn, the second …"""
  left = np.floor(masked_shares(config.schedule, config.steps) * positions)
  return np.searchsorted(positions - left, np.arange(positions), side='right')


def draw_in_random_order(
  predict: Predict,
  keys: Key[Array, ' B'],
  config: SamplingConfig,
  positions: int,
  mask_id: int,
) -> Drawn:
  """Draws images, each from its key alone.

  Args:
    predict: logits of all tokens, given those that are not masked.
    config: number of steps, and how many tokens each of them draws.
  """
  order_keys = jax.vmap(lambda key: jax.random.fold_in(key, config.steps))(keys)
  uniform = jax.vmap(lambda key: jax.random.uniform(key, (positions,)))(order_keys)
  step = jnp.asarray(step_of_rank(config, positions))[uniform.argsort(1).argsort(1)]

  def draw(tokens, number):
    of_step = jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
    sampled = jax.vmap(jax.random.categorical)(of_step, predict(tokens))
    return jnp.where(step == number, sampled.astype(tokens.dtype), tokens), None

  start = jnp.full(step.shape, mask_id, jnp.int32)
  tokens, _ = jax.lax.scan(draw, start, jnp.arange(config.steps))
  return Drawn(tokens, step)


def likelihood(
  predict: Predict, reference: Predict, drawn: Drawn, steps: int, mask_id: int
) -> Likelihood:
  """Returns how probable drawn images are; can be differentiated.

  Args:
    predict: the model, from tokens to logits.
    reference: the model that the divergence is measured from.
  """

  @jax.checkpoint
  def add_step(found, number):
    seen = jnp.where(drawn.step < number, drawn.tokens, mask_id)
    logs = jax.nn.log_softmax(predict(seen))
    others = jax.lax.stop_gradient(jax.nn.log_softmax(reference(seen)))
    of_token = jnp.take_along_axis(logs, drawn.tokens[..., None], -1)[..., 0]
    divergence = jnp.sum(jnp.exp(logs) * (logs - others), -1)
    now = drawn.step == number
    return jax.tree.map(
      lambda old, new: jnp.where(now, new, old), found, Likelihood(of_token, divergence)
    ), None

  zeros = jnp.zeros(drawn.tokens.shape)
  found, _ = jax.lax.scan(add_step, Likelihood(zeros, zeros), jnp.arange(steps))
  return found


def advantages(rewards: Float[Array, 'P G']) -> Float[Array, 'P G']:
  """Returns how far each reward lies above its group's mean, in deviations."""
  deviation = rewards.std(1, keepdims=True) + _EPSILON
  return (rewards - rewards.mean(1, keepdims=True)) / deviation


def check_grid(map_size: int, grid: int) -> None:
  """Raises InputError unless a map can be pooled onto the tokens."""
  if map_size % grid:
    raise InputError(
      f'the heatmaps have {map_size} x {map_size} px, which {grid} x {grid} tokens do '
      'not divide; use a RAHF or a Muse of another size, or config.reward.dense=0'
    )


def blame(maps: Float[Array, 'B H W'], grid: int) -> Float[Array, 'B N']:
  """Returns how far each token's part of a map lies above the mean of the map.

  Args:
    maps: higher is worse; `check_grid` accepts their size.
    grid: side of the grid of tokens.
  """
  side = maps.shape[1] // grid
  pooled = maps.reshape(len(maps), grid, side, grid, side).mean((2, 4))
  return (pooled - pooled.mean((1, 2), keepdims=True)).reshape(len(maps), -1)


def of_neighbours(values: Float[Array, 'B N'], group: int) -> Float[Array, 'B N']:
  """Returns for each image the values of another one of its group."""
  groups = values.reshape(-1, group, values.shape[1])
  return jnp.roll(groups, 1, 1).reshape(values.shape)
