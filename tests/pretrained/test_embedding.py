"""T5's token embedding under each of its names, and under several."""

import numpy as np
import pytest

from hf_files import T5, random, t5_arrays, write
from rahf.errors import InputError
from rahf.pretrained.embedding import EMBEDDING, LOGITS
from rahf.pretrained.huggingface import open_huggingface


@pytest.fixture
def folder(tmp_path):
  return tmp_path / 'model'


def test_aliases_of_the_embedding_must_agree(folder):
  arrays = t5_arrays()
  same = arrays['shared.weight']
  arrays |= {
    'lm_head.weight': same.copy(),
    'encoder.embed_tokens.weight': same.copy(),
    'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight': same,
  }
  source = open_huggingface(write(folder, T5, arrays))
  assert len(source.ignored) == 3
  np.testing.assert_array_equal(source.weights[EMBEDDING].read(), same)
  arrays['lm_head.weight'] = same + 1
  source = open_huggingface(write(folder, T5, arrays))
  with pytest.raises(InputError, match=r'lm_head.weight should be the same as shared'):
    source.weights[EMBEDDING].read()


@pytest.mark.parametrize(
  'fields',
  [
    {'tie_word_embeddings': False},
    {'tie_word_embeddings': True, 'scale_decoder_outputs': False},
  ],
)
def test_unscaled_logits_have_a_kernel(folder, fields):
  arrays = t5_arrays()
  source = open_huggingface(write(folder, T5 | fields, arrays))
  assert source.settings['t5.tied_logits'] is False
  np.testing.assert_array_equal(
    source.weights[LOGITS].read(), arrays['shared.weight'].T
  )
  arrays['lm_head.weight'] = random(20, 8)
  source = open_huggingface(write(folder, T5 | fields, arrays))
  np.testing.assert_array_equal(
    source.weights[LOGITS].read(), arrays['lm_head.weight'].T
  )


ENCODER, DECODER = (f'{side}.embed_tokens.weight' for side in ('encoder', 'decoder'))


@pytest.mark.parametrize('tied', [True, False])
@pytest.mark.parametrize('prefix', ['', 'model.'])
@pytest.mark.parametrize('names', ['e', 'd', 'h', 'ed', 'edh', 'sedh'])
def test_the_embedding_is_found_under_any_of_its_names(folder, names, prefix, tied):
  arrays = t5_arrays()
  embedding, head = arrays.pop('shared.weight'), random(20, 8)
  written = [
    {'s': 'shared.weight', 'e': ENCODER, 'd': DECODER, 'h': 'lm_head.weight'}[letter]
    for letter in names
  ]
  # If tied or the only array, the head is the embedding.
  same = tied or names == 'h'
  arrays |= {
    prefix + name: embedding.copy() if same or name != 'lm_head.weight' else head
    for name in written
  }
  source = open_huggingface(write(folder, T5 | {'tie_word_embeddings': tied}, arrays))
  weight = source.weights[EMBEDDING]
  assert weight.name == prefix + written[0]
  np.testing.assert_array_equal(weight.read(), embedding)
  assert (LOGITS in source.weights) != tied
  if not tied:
    logits = source.weights[LOGITS]
    expected = head if 'h' in names and names != 'h' else embedding
    assert logits.shape == (8, 20)
    np.testing.assert_array_equal(logits.read(), expected.T)
  used = {weight.name for weight in source.weights.values()}
  assert used.isdisjoint(source.ignored)
  assert used | source.ignored.keys() == arrays.keys()


@pytest.mark.parametrize('tied', [True, False])
@pytest.mark.parametrize(
  ('first', 'other'),
  [('shared.weight', ENCODER), ('shared.weight', DECODER), (ENCODER, DECODER)],
)
def test_embeddings_that_differ_are_an_error(folder, first, other, tied):
  arrays = t5_arrays()
  embedding = arrays.pop('shared.weight')
  arrays |= {first: embedding, other: embedding + 1}
  source = open_huggingface(write(folder, T5 | {'tie_word_embeddings': tied}, arrays))
  with pytest.raises(InputError, match=rf'{other} should be the same as {first}, but'):
    source.weights[EMBEDDING].read()
