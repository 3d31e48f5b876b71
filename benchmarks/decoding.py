"""Times the keyword decoders, without the encoder, at the size of T5 base.

  python benchmarks/decoding.py [--batch=1] [--repeats=5] [--decoders=greedy]

A prompt has 20 words in 27 pieces (the median of PartiPrompts of that length with T5's
vocabulary), some of which are misaligned. The weights are random; the logits of the
target's tokens are raised, at negligible cost, so that every decoder copies the prompt
and marks these words. The keys and values of the memory, 1,024 image tokens and the
prompt, are shared by all decoders and timed separately. Beam search keeps four beams.
"""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import machine
import numpy as np
from absl import app, flags
from jaxtyping import Array, Bool, Float, Int

from rahf.models import constrained, decoding
from rahf.models.beam import beam
from rahf.models.t5 import T5, DecoderCache, KeyValue, T5Config

_BATCH = flags.DEFINE_integer('batch', 1, 'Prompts per batch.')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Repetitions; prints the median.')
_DECODERS = flags.DEFINE_list(
  'decoders', [], 'What to time, of greedy, beam, sequential, parallel (default: all).'
)

CONFIG = T5Config()
MARK_IDS = 834, 632
WORDS, PIECES = 20, 27
IMAGE_TOKENS, TEXT_LENGTH = 1024, 32
MARKED = 0, 2, 5
BEAMS = 4


def main(argv: list[str]) -> None:
  del argv
  print(f'{machine.processor()}; {machine.accelerator()}')
  print(f'{_BATCH.value} prompt(s) of {WORDS} words; seconds, speedup over the first')
  model = T5(CONFIG, 0.0, jnp.dtype('float32'))
  params = jax.jit(functools.partial(model.init, method=_all_parts))(
    jax.random.key(0), jnp.ones((1, 2), jnp.int32)
  )
  shape = (_BATCH.value, IMAGE_TOKENS + TEXT_LENGTH, CONFIG.width)
  fused = jax.random.normal(jax.random.key(1), shape)
  keys_values = jax.jit(functools.partial(model.apply, method=T5.keys_values))
  seconds, memory = median_seconds(keys_values, params, fused)
  print(f'keys and values      {seconds:8.3f} s')
  chosen = _DECODERS.value or [*DECODERS]
  if unknown := set(chosen) - set(DECODERS):
    raise app.UsageError(f'--decoders={",".join(unknown)} is not one of {[*DECODERS]}')
  for marked in MARKED:
    prompts = make_prompts(marked)
    base = None
    for name in chosen:
      run = jax.jit(functools.partial(model.apply, method=DECODERS[name]))
      seconds, found = median_seconds(run, params, memory, prompts)
      check(name, np.asarray(found), prompts)
      base = base or seconds
      per_token = 1e3 * seconds / prompts.target.shape[1]
      print(
        f'{marked} marked  {name:11}{seconds:8.3f} s{base / seconds:7.1f} x'
        f'{per_token:8.1f} ms a token'
      )


class Prompts(NamedTuple):
  """Prompts with word ends, marks after misaligned words, and decoding targets."""

  ids: Int[Array, 'B L']
  word_end: Bool[Array, 'B L']
  marked: Bool[Array, 'B L']
  target: Int[Array, 'B T']


def make_prompts(marked: int) -> Prompts:
  """Returns prompts with `marked` misaligned words, evenly spread."""
  shape = _BATCH.value, TEXT_LENGTH
  ids = jax.random.randint(jax.random.key(2), shape, 1000, CONFIG.vocab_size)
  position = jnp.arange(TEXT_LENGTH)
  after = jnp.where(position == PIECES, decoding.EOS_ID, 0)
  ids = jnp.where(position < PIECES, ids, after)
  # Seven words have two pieces.
  ends = np.setdiff1d(np.arange(1, PIECES + 1), np.arange(2, PIECES, 4))
  chosen = ends[:: WORDS // max(marked, 1)][:marked]
  at_ends, at_marks = (
    jnp.broadcast_to(jnp.isin(position, jnp.asarray(positions)), shape)
    for positions in (ends, chosen)
  )
  length = PIECES + 1 + len(MARK_IDS) * WORDS
  target, _ = constrained.insert_marks(ids, at_marks, MARK_IDS, length)
  return Prompts(ids, at_ends, at_marks, target)


def raised(logits: Float[Array, '*B V'], tokens: Int[Array, '*B']) -> Array:
  return logits.at[*jnp.indices(tokens.shape), tokens].add(1000.0)


def greedy(t5: T5, memory: tuple[KeyValue, ...], prompts: Prompts) -> Array:
  mask = jnp.ones(memory[0].key.shape[:2], bool)

  def step(token, cache, position):
    logits, cache = t5.decode_step(token, cache, mask, position)
    return raised(logits, prompts.target[:, position]), cache

  batch, length = prompts.target.shape
  cache = DecoderCache.start(memory, length)
  return decoding.greedy(step, cache, batch=batch, length=length)


def beam_of_four(t5: T5, memory: tuple[KeyValue, ...], prompts: Prompts) -> Array:
  batch, length = prompts.target.shape
  memory, target = jax.tree.map(
    lambda x: jnp.repeat(x, BEAMS, axis=0), (memory, prompts.target)
  )
  mask = jnp.ones(memory[0].key.shape[:2], bool)
  start = DecoderCache.start(memory, length)

  def step(token, past, position):
    cache = start._replace(past=past)
    logits, cache = t5.decode_step(token, cache, mask, position)
    return raised(logits, target[:, position]), cache.past

  return beam(step, start.past, batch=batch, length=length, beams=BEAMS)


def teacher(
  t5: T5, memory: tuple[KeyValue, ...], prompts: Prompts
) -> constrained.Decode:
  """Returns a teacher-forced decoder that copies the prompt regardless of marks."""
  mask = jnp.ones(memory[0].key.shape[:2], bool)

  def decode(given, place, tokens):
    is_mark = jnp.isin(given, jnp.asarray(MARK_IDS))
    next_token = jnp.cumsum(~is_mark, axis=1) - ~is_mark  # Its position in the prompt.
    copied, marked = (
      jnp.take_along_axis(x, next_token, axis=1, mode='clip')
      for x in (prompts.ids, prompts.marked)
    )
    forced = jnp.where(marked, MARK_IDS[0], copied)
    forced = jnp.take_along_axis(forced, place, axis=1)[..., None]
    logits = t5.decode_at(memory, mask, given, place, tokens)
    return logits + 1000.0 * (tokens == forced)

  return decode


def sequential(t5: T5, memory: tuple[KeyValue, ...], prompts: Prompts) -> Array:
  decode, length = teacher(t5, memory, prompts), prompts.target.shape[1]
  return constrained.sequential(decode, prompts.ids, prompts.word_end, MARK_IDS, length)


def parallel(t5: T5, memory: tuple[KeyValue, ...], prompts: Prompts) -> Array:
  decode = teacher(t5, memory, prompts)
  return constrained.parallel(decode, prompts.ids, prompts.word_end, MARK_IDS)


DECODERS = {
  'greedy': greedy,
  'beam': beam_of_four,
  'sequential': sequential,
  'parallel': parallel,
}


def median_seconds(run: Callable, *arguments) -> tuple[float, Any]:
  """Returns the median seconds without compilation, and the result."""
  found = jax.block_until_ready(run(*arguments))
  seconds = []
  for _ in range(_REPEATS.value):
    start = time.perf_counter()
    jax.block_until_ready(run(*arguments))
    seconds.append(time.perf_counter() - start)
  return statistics.median(seconds), found


def check(name: str, found: np.ndarray, prompts: Prompts) -> None:
  """Raises AssertionError unless a decoder gave the expected output."""
  if name in ('sequential', 'parallel'):
    np.testing.assert_array_equal(found > 0.5, prompts.marked, name)
  else:
    np.testing.assert_array_equal(found, prompts.target, name)


def _all_parts(t5: T5, tokens):
  embedded, mask = t5.embed(tokens), jnp.ones(tokens.shape, bool)
  return t5.decode(t5.encode(embedded, mask, train=False), mask, tokens, train=False)


if __name__ == '__main__':
  app.run(main)
