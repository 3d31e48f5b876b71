import json
import pathlib
import re

import pytest

from rahf.data.clip_tokenizer import CLEANINGS, END, START, ClipTokenizer
from rahf.errors import InputError

MERGES = 'clip_bpe_simple_vocab_16e6.txt.gz'


@pytest.fixture(scope='module')
def tokenizers(assets):
  path = assets / 'tokenizer' / MERGES
  return {cleaning: ClipTokenizer(path, cleaning) for cleaning in CLEANINGS}


def goldens(assets):
  return json.loads((assets / 'preferences' / 'clip_tokens.json').read_text('utf-8'))


def test_both_cleanings_reproduce_the_public_tokens(tokenizers, assets):
  assert not all(golden['same'] for golden in goldens(assets))
  for golden in goldens(assets):
    found = {
      name: tokenizer.encode([golden['text']]).ids[0]
      for name, tokenizer in tokenizers.items()
    }
    for name, key in (('openai', 'openai'), ('huggingface', 'hf_fast')):
      expected = golden[key]
      assert found[name][: len(expected)].tolist() == expected, golden['text']
      assert (found[name][len(expected) :] == expected[-1]).all()
    assert (found['openai'] == found['huggingface']).all() == golden['same']


def test_a_text_that_is_too_long_is_cut_and_reported(tokenizers):
  tokens = tokenizers['openai'].encode(['red ' * 75, 'red ' * 76])
  assert tokens.truncated.tolist() == [False, True]
  assert (tokens.ids[:, 0] == 49406).all()
  assert (tokens.ids[:, -1] == 49407).all()


def write_small(folder: pathlib.Path):
  vocabulary = {
    token: i for i, token in enumerate(['a', 'b</w>', 'ab</w>', START, END])
  }
  (folder / 'vocab.json').write_text(json.dumps(vocabulary))
  (folder / 'merges.txt').write_text('#version: 0.2\na b</w>\n')
  return vocabulary


def test_a_directory_may_hold_either_form(tmp_path):
  vocabulary = write_small(tmp_path)
  two_files = ClipTokenizer(tmp_path, 'huggingface').ids('AB ab')
  assert two_files == [3, 2, 2, 4]
  for merges in (['a b</w>'], [['a', 'b</w>']]):
    model = {'vocab': vocabulary, 'merges': merges, 'end_of_word_suffix': '</w>'}
    (tmp_path / 'tokenizer.json').write_text(json.dumps({'model': model}))
    assert ClipTokenizer(tmp_path, 'huggingface').ids('AB ab') == two_files


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('merges.txt', 'a b c\n', 'merge 1 is'),
    ('vocab.json', '{"a": 1}', 'does not number its tokens'),
    ('vocab.json', '{"a": 0}', 'lacks <|startoftext|>'),
    ('vocab.json', '{"a": 0, "b": 1.0}', 'does not number its tokens'),
    ('vocab.json', '{"a": 0, "b": null}', 'does not number its tokens'),
    ('vocab.json', '[', 'vocab.json is damaged'),
    ('merges.txt', '#version: 0.2\n', "no merge makes the token 'ab</w>'"),
    ('merges.txt', 'a b</w>\na z</w>\n', "its merges make 'az</w>', which is not"),
    ('vocab.json', 'version https://git-lfs.github.com/spec/v1\n', 'Git LFS pointer'),
    ('tokenizer.json', '{"model": {"type": "Unigram"}}', 'not a CLIP tokenizer'),
  ],
)
def test_damaged_vocabularies_are_named(tmp_path, name, content, message):
  write_small(tmp_path)
  (tmp_path / name).write_text(content)
  with pytest.raises(InputError, match=message.replace('|', r'\|')):
    ClipTokenizer(tmp_path, 'huggingface')


@pytest.mark.parametrize('cleaning', CLEANINGS)
@pytest.mark.parametrize(
  'text',
  ['that’s a cat', '“castle” a dog', 'cafe\u0301 a  cat', 'that a\ncat', 'a_b a'],
)
def test_words_have_their_own_tokens(tokenizers, cleaning, text):
  """Also where cleaning changes words, whose letters other words repeat."""
  tokenizer = tokenizers[cleaning]
  named = {number: token for token, number in tokenizer.vocabulary.ids.items()}
  words = [match.span() for match in re.finditer(r'[^\W_\u0301]+\u0301?', text)]
  ids = tokenizer.ids(text)
  found = tokenizer.tokens_of(text, words)
  for (start, end), places in zip(words, found, strict=True):
    if text[start:end].isascii():
      pieces = ''.join(named[ids[place]] for place in places)
      # The apostrophe belongs to the token of the s.
      assert pieces.removeprefix("'").removesuffix('</w>') == text[start:end]


def test_a_missing_vocabulary_says_what_is_needed(tmp_path):
  with pytest.raises(
    InputError, match=r'contains no vocabulary of CLIP; .*merges\.txt'
  ):
    ClipTokenizer(tmp_path, 'huggingface')


def test_a_file_of_merges_that_is_cut_off(tmp_path):
  (tmp_path / 'bpe.txt').write_text('title\na b\n')
  with pytest.raises(InputError, match='merges, but CLIP has 48,894'):
    ClipTokenizer(tmp_path / 'bpe.txt', 'openai')
