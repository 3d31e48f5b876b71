"""Keyword decoding along the prompt: only marks are predicted.

The target is the prompt with a mark after each misaligned word. So the decoder is
free only where a word ends: to begin the mark or to continue the prompt. p, the
probability of misalignment, is the softmax over these two logits. There is one p per
word, whatever the decoder would have written by itself.

  parallel    one pass over the unmarked prompt: every word is judged as if all
              words before it were aligned
  sequential  every word is judged given the marks chosen (p > 1/2) before it

Going word by word would leave an accelerator idle, so `sequential` iterates: it
passes over the prompt with the marks of the pass before, until they no longer change.
A choice depends on the marks in front of it alone, so after pass i the first i
choices are final, and the end is exactly what going word by word gives, mostly after
two or three passes instead of one step per word.

Axis letters: B batch, L prompt tokens, T target tokens, C candidates.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rahf.models.layers import split_by_batch

# Target under teacher forcing, places in it and candidates for each place, to the
# candidates' logits: two tokens matter, not the vocabulary.
Decode = Callable[
  [Int[Array, 'B T'], Int[Array, 'B L'], Int[Array, 'B L C']], Float[Array, 'B L C']
]


def parallel(
  decode: Decode,
  prompt: Int[Array, 'B L'],
  word_end: Bool[Array, 'B L'],
  mark_ids: tuple[int, ...],
) -> Float[Array, 'B L']:
  """Judges all words at once.

  Args:
    decode: teacher forcing, as `T5.decode_at`.
    prompt: token ids, EOS included.
    word_end: True at the tokens in front of which a word ends.
    mark_ids: the pieces of the mark.

  Returns:
    p at the tokens in front of which a word ends, 0 elsewhere.
  """
  place = jnp.broadcast_to(jnp.arange(prompt.shape[1]), prompt.shape)
  p = choose(decode, prompt, place, prompt, mark_ids[0])
  return jnp.where(word_end, p, 0.0)


def sequential(
  decode: Decode,
  prompt: Int[Array, 'B L'],
  word_end: Bool[Array, 'B L'],
  mark_ids: tuple[int, ...],
  length: int,
) -> Float[Array, 'B L']:
  """Judges each word given the marks before it; see `parallel`.

  Args:
    length: T, of the prompt with its marks. A word whose end moves past it is not
      judged, p is 0.
  """

  def unsettled(state):
    passes, _, _, changed = state
    return changed & (passes <= prompt.shape[1])

  def judge_again(state):
    passes, marked, _, _ = state
    target, place = insert_marks(prompt, marked, mark_ids, length)
    p = choose(decode, target, place, prompt, mark_ids[0])
    p = jnp.where(word_end & (place < length), p, 0.0)
    return passes + 1, p > 0.5, p, jnp.any((p > 0.5) != marked)

  unmarked = split_by_batch(jnp.zeros(prompt.shape, bool))
  start = (0, unmarked, split_by_batch(jnp.zeros(prompt.shape)), jnp.array(True))
  return jax.lax.while_loop(unsettled, judge_again, start)[2]


def insert_marks(
  prompt: Int[Array, 'B L'],
  marked: Bool[Array, 'B L'],
  mark_ids: tuple[int, ...],
  length: int,
) -> tuple[Int[Array, 'B T'], Int[Array, 'B L']]:
  """Puts a mark in front of each token where `marked`.

  Returns:
    The target, cut at `length`, and for each prompt token where the choice in front
    of it is made: its own place, or that of the mark.
  """

  def insert(prompt, marked):
    choice = len(mark_ids) * (jnp.cumsum(marked) - marked) + jnp.arange(len(prompt))
    target = jnp.zeros(length, jnp.int32)
    for i, piece in enumerate(mark_ids):
      # A place past the end is dropped.
      place = jnp.where(marked, choice + i, length)
      target = target.at[place].set(piece, mode='drop')
    place = choice + len(mark_ids) * marked
    return target.at[place].set(prompt, mode='drop'), choice

  # Row by row, or the compiler would look for each place in all rows of the mesh.
  return jax.vmap(insert)(prompt, marked)


def choose(
  decode: Decode,
  target: Int[Array, 'B T'],
  place: Int[Array, 'B L'],
  prompt: Int[Array, 'B L'],
  mark_id: int,
) -> Float[Array, 'B L']:
  """Returns the probability of the mark against the prompt's next token.

  Args:
    place: where in T the choice in front of each prompt token is made.
  """
  candidates = jnp.stack([jnp.full_like(prompt, mark_id), prompt], axis=-1)
  logits = decode(target, jnp.minimum(place, target.shape[1] - 1), candidates)
  return jax.nn.sigmoid(logits[..., 0] - logits[..., 1])
