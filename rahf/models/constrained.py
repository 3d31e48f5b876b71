"""Constrained keyword decoding: the prompt is given, only the marks are predicted.

The target is the prompt with a mark after each misaligned word. The decoder therefore
has a choice only after a word: start the mark or continue the prompt. p, the
probability that the word is misaligned, is the softmax over these two logits. Each word
has one p, whatever the decoder would write without the constraint.

  parallel    one pass over the unmarked prompt: every word is judged as if all
              words before it were aligned
  sequential  every word is judged given the marks chosen (p > 1/2) before it

Decoding word by word would leave an accelerator idle. `sequential` iterates instead:
each pass decodes the prompt with the marks of the previous pass, until they no longer
change. A choice depends only on the marks before it, so the first i choices are final
after i passes, and the result is that of decoding word by word. It mostly takes two or
three passes instead of one step per word.

Axis letters: B batch, L prompt tokens, T target tokens, C candidates.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rahf.models.layers import constrain_batch

# From a target (teacher forcing), places in it and candidate tokens for each place to
# the candidates' logits, as `T5.decode_at`.
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
    prompt: token ids, EOS included.
    word_end: True at the token right after each word.
    mark_ids: token ids of the mark.

  Returns:
    p at the token right after each word, 0 elsewhere.
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
    length: T, of the prompt with its marks. A word that the marks push past it is not
      judged; its p is 0.
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

  unmarked = constrain_batch(jnp.zeros(prompt.shape, bool))
  start = (0, unmarked, constrain_batch(jnp.zeros(prompt.shape)), jnp.array(True))
  return jax.lax.while_loop(unsettled, judge_again, start)[2]


def insert_marks(
  prompt: Int[Array, 'B L'],
  marked: Bool[Array, 'B L'],
  mark_ids: tuple[int, ...],
  length: int,
) -> tuple[Int[Array, 'B T'], Int[Array, 'B L']]:
  """Inserts a mark before each token where `marked` is True.

  Returns:
    The target, cut at `length`, and for each prompt token the place in the target where
    the choice before it is made: the place of the mark, or its own.
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

  # By row: otherwise the compiler would gather rows from all devices.
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
    place: in T, where the choice before each prompt token is made.
  """
  candidates = jnp.stack([jnp.full_like(prompt, mark_id), prompt], axis=-1)
  logits = decode(target, jnp.minimum(place, target.shape[1] - 1), candidates)
  return jax.nn.sigmoid(logits[..., 0] - logits[..., 1])
