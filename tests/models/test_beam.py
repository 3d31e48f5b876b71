"""Beam search against exhaustive search."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rahf.models import decoding
from rahf.models.beam import beam, length_penalty

EOS, SIZE, LENGTH = decoding.EOS_ID, 5, 4


def search(table: np.ndarray, beams: int, length: int = LENGTH) -> np.ndarray:
  """Decodes with the logits table[row, token before the last, last token].

  The cache holds the row's number and the token before the last: a beam that took
  another's cache would follow wrong logits.
  """
  batch = len(table)
  row = jnp.repeat(jnp.arange(batch), beams)

  def step(token, cache, position):
    row, before = cache
    return jnp.asarray(table)[row, before, token], (row, token)

  cache = (row, jnp.zeros(batch * beams, jnp.int32))
  run = jax.jit(
    lambda cache: beam(step, cache, batch=batch, length=length, beams=beams)
  )
  return np.asarray(run(cache))


def best_of_all(table: np.ndarray, length: int = LENGTH) -> list[int]:
  """Scores every ended sequence of one row by the definition."""
  log_probs = np.asarray(jax.nn.log_softmax(table))
  scored = []
  for size in range(1, length + 1):
    for body in itertools.product(
      [t for t in range(SIZE) if t != EOS], repeat=size - 1
    ):
      tokens = [0, 0, *body, EOS]
      total = sum(
        log_probs[tokens[i], tokens[i + 1], tokens[i + 2]] for i in range(size)
      )
      scored.append((total / length_penalty(size), [*body, EOS]))
  return max(scored)[1]


@pytest.mark.parametrize('seed', range(5))
def test_enough_beams_find_the_best_sequence(seed):
  table = np.random.default_rng(seed).normal(0, 2, (3, SIZE, SIZE, SIZE))
  found = search(table.astype(np.float32), beams=80)
  for row, tokens in zip(table, found, strict=True):
    expected = best_of_all(row)
    np.testing.assert_array_equal(tokens, expected + [0] * (LENGTH - len(expected)))


def test_one_beam_is_greedy_where_nothing_ends_early():
  table = np.random.default_rng(1).normal(0, 2, (4, SIZE, SIZE, SIZE))
  table[..., EOS] = -50
  table = table.astype(np.float32)

  def step(token, before, position):
    return jnp.asarray(table)[jnp.arange(4), before, token], token

  expected = decoding.greedy(step, jnp.zeros(4, jnp.int32), batch=4, length=LENGTH)
  np.testing.assert_array_equal(search(table, beams=1), expected)


def test_beams_look_past_a_bad_first_token():
  # The likeliest first token, 2, only has unlikely successors.
  table = np.full((1, SIZE, SIZE, SIZE), 0.0, np.float32)
  table[0, 0, 0, [2, 3]] = 2.0, 1.8
  table[0, 0, 3, EOS] = 9.0
  assert search(table, beams=1)[0, 0] == 2
  np.testing.assert_array_equal(search(table, beams=2)[0], [3, EOS, 0, 0])


def test_without_an_end_the_best_beginning_is_returned():
  table = np.zeros((1, SIZE, SIZE, SIZE), np.float32)
  table[..., EOS] = -np.inf
  table[..., 4] = 1.0
  np.testing.assert_array_equal(search(table, beams=3)[0], [4, 4, 4, 4])
