"""Greedy decoding, and the types that it shares with beam search.

Axis letters: B batch, T target tokens, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rahf.models.layers import constrain_batch

START_ID = 0
EOS_ID = 1
Cache = Any
DecodeStep = Callable[
  [Int[Array, 'B'], Cache, Int[Array, '']], tuple[Float[Array, 'B V'], Cache]
]


def greedy(
  step: DecodeStep, cache: Cache, *, batch: int, length: int
) -> Int[Array, 'B T']:
  """Takes the most likely token at each step until every sequence has ended.

  Args:
    step: from (previous token, cache, position) to (logits, cache).
    cache: the cache before the first step.
    batch: B, number of sequences.
    length: T, number of steps at most.

  Returns:
    Token ids, EOS included; 0 after it.
  """

  def unfinished(state):
    position, _, ended, _, _ = state
    return (position < length) & ~jnp.all(ended)

  def advance(state):
    position, token, ended, tokens, cache = state
    logits, cache = step(token, cache, position)
    token = jnp.where(ended, 0, jnp.argmax(logits, axis=-1).astype(jnp.int32))
    tokens = jax.lax.dynamic_update_slice_in_dim(
      tokens, token[:, None], position, axis=1
    )
    return position + 1, token, ended | (token == EOS_ID), tokens, cache

  state = (
    jnp.zeros((), jnp.int32),
    constrain_batch(jnp.full((batch,), START_ID, jnp.int32)),
    constrain_batch(jnp.zeros((batch,), bool)),
    constrain_batch(jnp.zeros((batch, length), jnp.int32)),
    cache,
  )
  return jax.lax.while_loop(unfinished, advance, state)[3]
