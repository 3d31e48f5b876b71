"""Labels to targets, through constrained decoding and back, on difficult prompts.

Instead of a trained decoder, one that writes a given target: at each position, its
logits select the target's token.
"""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from rahf.data.tokenizer import Tokenizer, at_word_ends, pad, word_end_mask
from rahf.models import constrained


@pytest.fixture(scope='module')
def tokenizer(assets):
  return Tokenizer(assets / 'tokenizer' / 't5-base.spiece.model')


@pytest.fixture(scope='module')
def prompts(assets):
  lines = (assets / 'prompts' / 'pickapic_quirks.jsonl').read_text().splitlines()
  texts = [json.loads(line)['prompt'] for line in lines]
  assert len(texts) == 118
  return texts


def writer(target: np.ndarray):
  """Returns a decoder that gives only the next token of the target a high logit."""

  def decode(given, position, tokens):
    written = jnp.take_along_axis(target, position, axis=1)
    return 10.0 * (tokens == written[..., None])

  return decode


@pytest.mark.parametrize('marked', ['none', 'random', 'all'])
def test_no_word_is_lost_or_added(tokenizer, prompts, marked):
  rng = np.random.default_rng(0)
  pieces = [tokenizer.encode(prompt) for prompt in prompts]
  chances = {'none': 0.0, 'random': 0.3, 'all': 1.0}
  labels = [
    (rng.random(len(piece.word_ends)) >= chances[marked]).astype(int)
    for piece in pieces
  ]
  targets = [tokenizer.mark(*pair) for pair in zip(pieces, labels, strict=True)]
  length = 1 + max(map(len, targets))
  prompt_length = 1 + max(len(piece.ids) for piece in pieces)

  p = constrained.sequential(
    writer(jnp.array([pad(target, length) for target in targets])),
    jnp.array([pad(piece.ids, prompt_length) for piece in pieces]),
    jnp.array([word_end_mask(piece, prompt_length) for piece in pieces]),
    tokenizer.mark_ids,
    length,
  )
  for row, piece, truth in zip(np.asarray(p), pieces, labels, strict=True):
    found = at_word_ends(row, piece)
    assert len(found) == len(truth)
    np.testing.assert_array_equal(found > 0.5, truth == 0)


def test_a_mark_never_begins_like_the_next_piece(tokenizer, prompts):
  # Decoding relies on it: one piece decides between a mark and the next word.
  for prompt in prompts:
    ids, word_ends = tokenizer.encode(prompt)
    following = {ids[end] for end in word_ends if end < len(ids)}
    assert tokenizer.mark_ids[0] not in following


def test_words_after_the_cut_count_as_aligned(tokenizer):
  pieces = tokenizer.encode('a red cat, two dogs')
  assert len(pieces.word_ends) == 5
  cut = pieces.word_ends[2] + 1
  mask = word_end_mask(pieces, cut)
  assert np.flatnonzero(mask).tolist() == list(pieces.word_ends[:3])
  found = at_word_ends(np.where(mask, 0.9, 0.1), pieces)
  np.testing.assert_array_equal(found, [0.9, 0.9, 0.9, 0, 0])
