"""Greedy decoding of tables of logits whose best path is obvious."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rahf.models import decoding

EOS = decoding.EOS_ID


def follow(table: np.ndarray, length: int) -> tuple[np.ndarray, int]:
  """Decodes with the logits table[row, token before]; also counts the steps."""
  steps = []

  def step(token, cache, position):
    jax.debug.callback(lambda at: steps.append(int(at)), position, ordered=True)
    return jnp.asarray(table)[jnp.arange(len(table)), token], cache

  decode = jax.jit(lambda: decoding.greedy(step, (), batch=len(table), length=length))
  tokens = np.asarray(decode())
  jax.effects_barrier()
  return tokens, len(steps)


def chain(*successors: int, size: int = 6) -> np.ndarray:
  """Logits that make each token in turn the likeliest, starting after START_ID."""
  table = np.zeros((size, size), np.float32)
  before = decoding.START_ID
  for token in successors:
    table[before, token] = 5
    before = token
  return table


def test_each_row_ends_at_its_own_eos():
  table = np.stack([chain(3, 4, EOS), chain(EOS), chain(5, 2, 4, 3, EOS)])
  # Without the stop, EOS would be followed by 4.
  table[:, EOS, 4] = 5
  tokens, steps = follow(table, length=8)
  expected = np.zeros((3, 8), int)
  expected[0, :3] = [3, 4, EOS]
  expected[1, 0] = EOS
  expected[2, :5] = [5, 2, 4, 3, EOS]
  np.testing.assert_array_equal(tokens, expected)
  assert steps == 5


@pytest.mark.parametrize('length', [1, 4])
def test_stops_at_the_length(length):
  tokens, steps = follow(chain(2, 3, 2)[None], length)
  np.testing.assert_array_equal(tokens, [[2, 3, 2, 3][:length]])
  assert steps == length


def test_the_first_of_equal_logits_wins():
  table = np.zeros((1, 6, 6), np.float32)
  table[0, decoding.START_ID, [3, 4]] = 1
  table[0, 3, EOS] = 1
  np.testing.assert_array_equal(follow(table, 3)[0], [[3, EOS, 0]])
