"""Constrained decoding with a causal stand-in for the decoder, whose logits are known.

The stand-in looks its logits up by a running hash of all tokens before, so that every
token changes all logits after it, as a decoder's would.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rahf.models import constrained

VOCABULARY, STATES = 12, 97
MARK = (10, 11)
TABLE = np.random.default_rng(0).normal(size=(STATES, VOCABULARY)).astype(np.float32)
# Two prompts of 6 and 4 tokens, ending with EOS (1); words end in front of True.
PROMPT = jnp.array([[5, 6, 3, 4, 7, 1], [8, 2, 9, 1, 0, 0]])
WORD_END = jnp.array([[0, 1, 0, 1, 1, 1], [0, 1, 0, 1, 0, 0]], bool)


def logits_after(prefix: list[int]) -> np.ndarray:
  """Logits of the token after a prefix, by the definition."""
  state = 0
  for place, token in enumerate([0, *prefix]):
    state = (state + (token + 1) * (place + 3) ** 2) % STATES
  return TABLE[state]


def decode(target, place, tokens):
  """The same under teacher forcing, for a batch."""
  return at(all_logits(target), place, tokens)


def at(logits, place, tokens):
  logits = jnp.take_along_axis(logits, place[..., None], axis=1)
  return jnp.take_along_axis(logits, tokens, axis=2)


def all_logits(target):
  inputs = jnp.pad(target[:, :-1], ((0, 0), (1, 0)))
  weights = (jnp.arange(target.shape[1]) + 3) ** 2
  return jnp.asarray(TABLE)[jnp.cumsum((inputs + 1) * weights, axis=1) % STATES]


def word_by_word(
  prompt: np.ndarray, word_end: np.ndarray, *, given_marks: bool
) -> np.ndarray:
  """Goes through one prompt a token at a time."""
  p, prefix = np.zeros(len(prompt)), []
  for t, token in enumerate(prompt):
    if word_end[t]:
      logits = logits_after(prefix)
      p[t] = 1 / (1 + np.exp(logits[token] - logits[MARK[0]]))
      if given_marks and p[t] > 0.5:
        prefix += MARK
    prefix.append(int(token))
  return p


@jax.jit
def judge_sequentially(prompt, word_end):
  longest = prompt.shape[1] * (1 + len(MARK))
  return constrained.sequential(decode, prompt, word_end, MARK, longest)


def test_the_stand_in_has_the_logits_of_its_table():
  for row, prompt in zip(all_logits(PROMPT), PROMPT.tolist(), strict=True):
    for t, logits in enumerate(row):
      np.testing.assert_array_equal(logits, logits_after(prompt[:t]))


def test_parallel_judges_each_word_after_the_unmarked_prompt():
  found = constrained.parallel(decode, PROMPT, WORD_END, MARK)
  for row, prompt, word_end in zip(found, PROMPT, WORD_END, strict=True):
    expected = word_by_word(prompt, word_end, given_marks=False)
    np.testing.assert_allclose(row, expected, atol=1e-6)
    assert np.all((row > 0) == word_end)


@pytest.mark.parametrize('seed', range(20))
def test_sequential_equals_decoding_word_by_word(seed):
  rng = np.random.default_rng(seed)
  prompt = rng.integers(2, 10, (3, 9))
  word_end = rng.random((3, 9)) < 0.6
  word_end[:, 0] = False
  found = judge_sequentially(jnp.asarray(prompt), jnp.asarray(word_end))
  expected = [
    word_by_word(*row, given_marks=True) for row in zip(prompt, word_end, strict=True)
  ]
  np.testing.assert_allclose(found, expected, atol=1e-6)
  assert 0 < (np.array(expected) > 0.5).sum() < word_end.sum()


def test_a_word_past_the_length_is_not_judged():
  everything = np.zeros((STATES, VOCABULARY), np.float32)
  everything[:, MARK[0]] = 1

  def decode_marks(target, place, tokens):
    return jnp.asarray(everything[0])[tokens]

  word_end = jnp.ones((1, 6), bool)
  found = constrained.sequential(decode_marks, PROMPT[:1], word_end, MARK, 8)
  # Each token moves by two marks: the third choice is at 6, the fourth at 9.
  np.testing.assert_array_equal(np.asarray(found[0]) > 0.5, [1, 1, 1, 0, 0, 0])


def test_marks_are_inserted_before_their_tokens():
  marked = jnp.array([[0, 1, 0, 0, 0, 1], [0, 0, 0, 1, 0, 0]], bool)
  target, place = constrained.insert_marks(PROMPT, marked, MARK, 11)
  np.testing.assert_array_equal(
    target,
    [[5, 10, 11, 6, 3, 4, 7, 10, 11, 1, 0], [8, 2, 9, 10, 11, 1, 0, 0, 0, 0, 0]],
  )
  np.testing.assert_array_equal(place, [[0, 1, 4, 5, 6, 7], [0, 1, 2, 3, 6, 7]])
  cut, _ = constrained.insert_marks(PROMPT, marked, MARK, 8)
  np.testing.assert_array_equal(cut, target[:, :8])
