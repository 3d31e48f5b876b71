import json
import random

import numpy as np
import pytest
import sentencepiece
from util import train_model

from rahf.data import label_words
from rahf.data import tokenizer as tokenizer_lib
from rahf.data.tokenizer import Tokenizer
from rahf.errors import InputError

# Words without a piece, words that share a boundary, and prompts with marks.
AWKWARD = (
  '',
  ' ',
  'x \u00a0 c',
  '\u200b hi',
  'a \u200b \u200b',
  'x \u00a0 _0',
  'x \u00a0 _0a _0',
  'a_0 b',
  '_0 cat _0, a_0_0 _ 0_',
  'a,b;c:"d"!?',
  '日本,<x, {a} b)!,c',
  '….,ﬁne½ a)., b)',
)


@pytest.fixture(scope='module')
def t5(assets):
  return Tokenizer(assets / 'tokenizer' / 't5-base.spiece.model')


@pytest.fixture(scope='module')
def prompts(assets):
  folder = assets / 'prompts'
  quirks = (folder / 'pickapic_quirks.jsonl').read_text('utf-8').splitlines()
  parti = (folder / 'PartiPrompts.tsv').read_text('utf-8').splitlines()[1:]
  return [
    *(json.loads(line)['prompt'] for line in quirks),
    *(line.split('\t')[0] for line in parti),
    *AWKWARD,
  ]


def test_plain_encoding_reproduces_published_ids(t5, assets):
  goldens = json.loads((assets / 'tokenizer' / 'tok_goldens.json').read_text())
  for text, golden in goldens['published'].items():
    assert t5.ids(text) == golden['ids']


def test_mark_is_the_two_published_pieces(t5, assets):
  goldens = json.loads((assets / 'tokenizer' / 'tok_goldens.json').read_text())
  golden = goldens['computed_with_sentencepiece_0.2.3']['a yellow_0 cat']
  assert t5.mark_ids == (834, 632)
  assert t5.mark(t5.encode('a yellow cat'), (1, 0, 1)) == golden


def test_every_word_ends_at_a_different_piece(t5, prompts):
  for prompt in prompts:
    for spans in (label_words.label_spans(prompt), label_words.word_spans(prompt)):
      ends = t5.encode(prompt, spans).word_ends
      assert len(ends) == len(spans)
      assert all(a < b for a, b in zip((0, *ends), ends, strict=False))
    labels = label_words.label_spans(prompt)
    assert t5.encode(prompt) == t5.encode(prompt, labels)


def test_words_at_line_ends_are_tokenised_as_between_spaces(t5):
  prompt = 'a red\ncircle\u00a0 on a\tmat\n'
  spaced = 'a red circle on a mat'
  expected = t5.encode(spaced)
  assert t5.encode(prompt, label_words.word_spans(prompt)) == expected
  assert len(expected.word_ends) == 6


def test_pieces_up_to_a_word_end_spell_the_prompt_so_far(t5):
  prompt = 'a red cat), (dog).'
  pieces = t5.encode(prompt)
  heads = [t5.decode(pieces.ids[:end]) for end in pieces.word_ends]
  assert heads == ['a', 'a red', 'a red cat)', 'a red cat), (dog)']
  assert t5.decode(pieces.ids) == prompt


def test_marks_read_back_for_every_prompt(t5, prompts):
  rng = random.Random(0)
  for prompt in prompts:
    pieces = t5.encode(prompt)
    for _ in range(3):
      labels = tuple(rng.randint(0, 1) for _ in pieces.word_ends)
      target = t5.mark(pieces, labels)
      assert t5.read_marks(pieces, [*target, 1, 0]) == (labels, 0), prompt


def test_marks_are_found_in_an_inexact_copy(t5):
  pieces = t5.encode('a yellow cat on a mat')
  # `yellow` is missing and `big` is inserted, so its mark belongs to no word.
  copy = t5.ids('a big_0 cat_0 on a mat_0')
  assert t5.read_marks(pieces, copy) == ((1, 1, 0, 1, 1, 0), 1)


def test_nothing_generated_is_nothing_marked(t5):
  assert t5.read_marks(t5.encode('a cat'), [1]) == ((1, 1), 0)


def test_label_count_must_fit(t5):
  with pytest.raises(InputError, match='3 keyword labels for the 2 words'):
    t5.mark(t5.encode('a cat'), (1, 0, 1))


def test_texts_start_with_each_task(t5):
  pieces = t5.encode('a red cat')
  texts = tokenizer_lib.prompt_texts(t5, pieces, 'augmented_prompt', 24)
  assert texts.ids.shape == (7, 24)
  assert not texts.truncated
  decoded = [t5.decode(row) for row in texts.ids]
  assert decoded[0] == 'implausibility heatmap: a red cat'
  assert decoded[3] == 'alignment score: a red cat'
  assert decoded[6] == 'a red cat'
  single = tokenizer_lib.prompt_texts(t5, pieces, 'multi_head', 24)
  np.testing.assert_array_equal(single.ids, texts.ids[6:])


def test_truncation_keeps_eos_last_and_is_flagged(t5):
  pieces = t5.encode('a red cat')
  length = len(pieces.ids) + 1
  fits = tokenizer_lib.prompt_texts(t5, pieces, 'multi_head', length)
  assert (fits.truncated, fits.ids[0, -1]) == (False, 1)
  cut = tokenizer_lib.prompt_texts(t5, pieces, 'multi_head', length - 1)
  assert (cut.truncated, cut.ids[0, -1]) == (True, 1)
  assert tuple(cut.ids[0, :-1]) == pieces.ids[:-1]


def test_small_vocabulary_with_a_single_mark_piece(tmp_path):
  tokenizer = Tokenizer(train_model(tmp_path / 'small.model', '_0'))
  assert len(tokenizer.mark_ids) == 1
  pieces = tokenizer.encode('a blue circle, _0 (red).')
  labels = (0, 1, 0, 0, 1)
  target = tokenizer.mark(pieces, labels)
  assert tokenizer.read_marks(pieces, target) == (labels, 0)


def test_vocabulary_larger_than_the_table(t5):
  t5.check_vocabulary(32128)
  with pytest.raises(InputError, match=r'32000 pieces.*512 rows.*config\.tokenizer'):
    t5.check_vocabulary(512)


def test_unusable_models_are_refused(tmp_path, assets):
  broken = tmp_path / 'broken.model'
  broken.write_bytes(b'not a model')
  with pytest.raises(InputError, match=r'broken\.model cannot be read'):
    Tokenizer(broken)
  broken.write_bytes(b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n')
  with pytest.raises(InputError, match=r'broken\.model is a Git LFS pointer, not the'):
    Tokenizer(broken)
  with pytest.raises(InputError, match=r'missing\.model cannot be read'):
    Tokenizer(tmp_path / 'missing.model')
  with pytest.raises(InputError, match='no pieces for the mark'):
    Tokenizer(train_model(tmp_path / 'unmarked.model'))
  other = tmp_path / 'other.model'
  with other.open('wb') as stream:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(['a red circle'] * 4),
      model_writer=stream,
      vocab_size=20,
      hard_vocab_limit=False,
      minloglevel=2,
    )
  with pytest.raises(InputError, match='for padding, EOS and unknown'):
    Tokenizer(other)
