"""Beam search over a decoder's steps.

Axis letters: B batch, K beams, T target tokens, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rahf.models.decoding import EOS_ID, START_ID, Cache, DecodeStep
from rahf.models.layers import constrain_batch

# Wu et al. (2016), equation 14, with T5X's exponent.
LENGTH_EXPONENT = 0.6
NEVER = -1e9


class Beams(NamedTuple):
  """Sequences with their scores; the score is NEVER where there is no sequence."""

  scores: Float[Array, 'B K']
  tokens: Int[Array, 'B K T']


class _State(NamedTuple):
  position: Int[Array, '']
  alive: Beams  # Scores are log-probabilities.
  ended: Beams  # Scores are log-probabilities over the length penalty.
  cache: Cache


def beam(
  step: DecodeStep, cache: Cache, *, batch: int, length: int, beams: int
) -> Int[Array, 'B T']:
  """Returns a likely sequence for each row, following its K best beginnings.

  Args:
    step: from (previous token, cache, position) to (logits, cache), for B x K rows.
    cache: the cache before the first step; its arrays have B x K rows.
    batch: B, number of sequences.
    length: T, number of steps at most.
    beams: K; 1 is greedy decoding.

  Returns:
    Token ids of the best finished sequence, or of the best unfinished one if none
    finished; EOS included, 0 after it.
  """
  empty = constrain_batch(jnp.zeros((batch, beams, length), jnp.int32))
  nothing = constrain_batch(jnp.full((batch, beams), NEVER))
  state = _State(
    jnp.zeros((), jnp.int32),
    # Start with one beam: equal beams would stay equal.
    Beams(nothing.at[:, 0].set(0.0), empty),
    Beams(nothing, empty),
    cache,
  )

  def unfinished(state: _State) -> Array:
    # Log-probabilities only fall, and the penalty is largest at the full length.
    best_possible = state.alive.scores[:, 0] / length_penalty(length)
    better = best_possible > state.ended.scores[:, 0]
    return (state.position < length) & jnp.any(better)

  def advance(state: _State) -> _State:
    position = state.position
    before = jax.lax.dynamic_index_in_dim(
      state.alive.tokens, jnp.maximum(position - 1, 0), axis=2, keepdims=False
    )
    token = jnp.where(position == 0, START_ID, before)
    logits, cache = step(token.reshape(-1), state.cache, position)
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    scores = state.alive.scores[:, :, None] + log_probs.reshape(batch, beams, -1)
    # Twice the beams, so that enough stay alive even if K of them end here.
    best, place = jax.lax.top_k(scores.reshape(batch, -1), 2 * beams)
    parent, token = jnp.divmod(place, logits.shape[-1])
    tokens = jnp.take_along_axis(state.alive.tokens, parent[:, :, None], axis=1)
    tokens = jax.lax.dynamic_update_slice_in_dim(
      tokens, token[:, :, None].astype(jnp.int32), position, axis=2
    )
    ends = token == EOS_ID

    ended = Beams(jnp.where(ends, best / length_penalty(position + 1), NEVER), tokens)
    ended = jax.tree.map(lambda *x: jnp.concatenate(x, 1), state.ended, ended)
    alive, chosen = _best(Beams(jnp.where(ends, NEVER, best), tokens), beams)
    cache = _follow(cache, jnp.take_along_axis(parent, chosen, axis=1))
    return _State(position + 1, alive, _best(ended, beams)[0], cache)

  state = jax.lax.while_loop(unfinished, advance, state)
  any_ended = state.ended.scores[:, 0] > NEVER
  return jnp.where(
    any_ended[:, None], state.ended.tokens[:, 0], state.alive.tokens[:, 0]
  )


def length_penalty(length: Array | int) -> Array | float:
  """Returns the divisor of log-probabilities that offsets their fall with length."""
  return ((5.0 + length) / 6.0) ** LENGTH_EXPONENT


def _follow(cache: Cache, parent: Int[Array, 'B K']) -> Cache:
  """Gives each beam the cache of the beam that it continues."""

  def follow(x: Array) -> Array:
    beams = x.reshape(*parent.shape, *x.shape[1:])
    # By row: otherwise the compiler would gather the parents from all devices.
    return jax.vmap(lambda beams, parent: beams[parent])(beams, parent).reshape(x.shape)

  return jax.tree.map(follow, cache)


def _best(beams: Beams, count: int) -> tuple[Beams, Int[Array, 'B K']]:
  """Returns the `count` best beams, best first, and their previous positions."""
  scores, chosen = jax.lax.top_k(beams.scores, count)
  tokens = jnp.take_along_axis(beams.tokens, chosen[:, :, None], axis=1)
  return Beams(scores, tokens), chosen
