"""How fast the keyword decoders are, the decoder alone, at T5 base's size.

  python benchmarks/decoding.py [--batch=1] [--repeats=5]

A prompt has 20 words in 27 pieces, the median of PartiPrompts of that length under
T5's vocabulary, and some of its words are misaligned. The weights are random; so that
every decoder copies the prompt and marks these words, the logits of the target's
tokens are raised, which costs next to nothing. What the decoders look at, 1,024 image
tokens and the prompt, is there already; its keys and values are computed by each.
"""

import functools
import statistics
import time

import jax
import jax.numpy as jnp
import machine
import numpy as np
from absl import app, flags

from rahf.models import constrained, decoding
from rahf.models.beam import beam
from rahf.models.t5 import T5, DecoderCache
from rahf.models.t5_layers import T5Config

_BATCH = flags.DEFINE_integer('batch', 1, 'Prompts at a time.')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Of which the median is printed.')

CONFIG = T5Config()
MARK_IDS = 834, 632
WORDS, PIECES = 20, 27
IMAGE_TOKENS, TEXT_LENGTH = 1024, 32
MARKED = 0, 2, 5
BEAMS = 4


def main(argv: list[str]) -> None:
  del argv
  print(f'{machine.processor()}; {machine.accelerator()}')
  print(f'{_BATCH.value} prompt(s) of {WORDS} words; seconds, and times faster')
  model = T5(CONFIG, 0.0, jnp.dtype('float32'))
  params = jax.jit(functools.partial(model.init, method=_all_parts))(
    jax.random.key(0), jnp.ones((1, 2), jnp.int32)
  )
  for marked in MARKED:
    prompt, word_end, target = make_prompt(marked)
    shape = (_BATCH.value, IMAGE_TOKENS + TEXT_LENGTH, CONFIG.width)
    fused = jax.random.normal(jax.random.key(1), shape)
    base = None
    for name, decoder in DECODERS.items():
      run = jax.jit(functools.partial(model.apply, method=decoder))
      seconds, found = median_seconds(run, params, fused, prompt, word_end, target)
      check(name, found, word_end, target, marked)
      base = base or seconds
      print(f'{marked} marked  {name:11}{seconds:8.3f} s{base / seconds:7.1f} x')


def make_prompt(marked: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns prompts, where their words end, and targets with the first words marked."""
  rng = np.random.default_rng(0)
  prompt = np.zeros((_BATCH.value, TEXT_LENGTH), np.int32)
  prompt[:, :PIECES] = rng.integers(1000, CONFIG.vocab_size, (_BATCH.value, PIECES))
  prompt[:, PIECES] = decoding.EOS_ID
  word_end = np.zeros(prompt.shape, bool)
  # Seven words have two pieces.
  ends = np.setdiff1d(np.arange(1, PIECES + 1), np.arange(2, PIECES, 4))
  word_end[:, ends] = True
  chosen = np.zeros(prompt.shape, bool)
  chosen[:, ends[:: WORDS // max(marked, 1)][:marked]] = True
  length = PIECES + 1 + len(MARK_IDS) * WORDS
  target, _ = constrained.insert_marks(
    jnp.asarray(prompt), jnp.asarray(chosen), MARK_IDS, length
  )
  return jnp.asarray(prompt), jnp.asarray(word_end), target


def raised(logits: jax.Array, tokens: jax.Array) -> jax.Array:
  rows = jnp.indices(tokens.shape)
  return logits.at[*rows, tokens].add(1000.0)


def greedy(t5: T5, fused, prompt, word_end, target):
  mask = jnp.ones(fused.shape[:2], bool)

  def step(token, cache, position):
    logits, cache = t5.decode_step(token, cache, mask, position)
    return raised(logits, target[:, position]), cache

  batch, length = target.shape
  cache = t5.start_decoding(fused, length)
  return decoding.greedy(step, cache, batch=batch, length=length)


def beam_of_four(t5: T5, fused, prompt, word_end, target):
  batch, length = target.shape
  cache, target = jax.tree.map(
    lambda x: jnp.repeat(x, BEAMS, axis=0), (t5.start_decoding(fused, length), target)
  )
  mask = jnp.ones(cache.fused[0].key.shape[:2], bool)

  def step(token, past, position):
    cache_now = DecoderCache(past, cache.fused)
    logits, new = t5.decode_step(token, cache_now, mask, position)
    return raised(logits, target[:, position]), new.past

  return beam(step, cache.past, batch=batch, length=length, beams=BEAMS)


def _teacher(t5: T5, fused, target):
  memory, mask = t5.keys_values(fused), jnp.ones(fused.shape[:2], bool)

  def decode(given):
    logits = t5.decode_memory(memory, mask, given, train=False)
    return raised(logits, target[:, : given.shape[1]])

  return decode


def sequential(t5: T5, fused, prompt, word_end, target):
  decode = _teacher(t5, fused, target)
  return constrained.sequential(decode, prompt, word_end, MARK_IDS, target.shape[1])


def parallel(t5: T5, fused, prompt, word_end, target):
  decode = _teacher(t5, fused, target)
  return constrained.parallel(decode, prompt, word_end, MARK_IDS)


DECODERS = {
  'greedy': greedy,
  f'beam of {BEAMS}': beam_of_four,
  'sequential': sequential,
  'parallel': parallel,
}


def median_seconds(run, *arguments) -> tuple[float, np.ndarray]:
  found = jax.block_until_ready(run(*arguments))
  seconds = []
  for _ in range(_REPEATS.value):
    start = time.perf_counter()
    jax.block_until_ready(run(*arguments))
    seconds.append(time.perf_counter() - start)
  return statistics.median(seconds), np.asarray(found)


def check(name: str, found, word_end, target, marked: int) -> None:
  """Raises AssertionError unless a decoder did what it is timed for."""
  if name == 'sequential':
    assert ((found > 0.5).sum(axis=1) == marked).all(), name
  elif name != 'parallel':
    np.testing.assert_array_equal(found, target, name)


def _all_parts(t5: T5, tokens):
  embedded, mask = t5.embed(tokens), jnp.ones(tokens.shape, bool)
  return t5.decode(t5.encode(embedded, mask, train=False), mask, tokens, train=False)


if __name__ == '__main__':
  app.run(main)
