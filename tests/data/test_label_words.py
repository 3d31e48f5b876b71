"""Where words start and end, for labels and for people."""

import re

import pytest

from rahf.data import label_words

# A line end, no-break spaces, an ideographic space, and zero-width characters.
ODD = 'a\u00a0red\n circle.\r\n\u00a0\n"Two\u3000dogs",\u200b \ufeffasleep\t'


def texts(prompt, spans):
  return [prompt[start:end] for start, end in spans]


def test_labels_are_split_only_at_the_eight_characters_of_the_release():
  assert label_words.label_tokens(ODD) == [
    *('a\u00a0red\n', 'circle', '\r\n\u00a0\n', 'Two\u3000dogs'),
    *('\u200b', '\ufeffasleep\t'),
  ]


def test_words_contain_no_white_space():
  found = texts(ODD, label_words.word_spans(ODD))
  assert found == ['a', 'red', 'circle', 'Two', 'dogs', 'asleep']
  found = texts(ODD, label_words.spaced_spans(ODD))
  assert found == ['a', 'red', 'circle.', '"Two', 'dogs",', 'asleep']


def test_every_white_space_ends_a_word():
  spaces = [chr(code) for code in range(0x110000) if chr(code).isspace()]
  assert len(spaces) > 25
  for space in (*spaces, *'\u200b\u200e\u200f\ufeff'):
    prompt = f'{space}a{space}{space}b{space}'
    assert texts(prompt, label_words.word_spans(prompt)) == ['a', 'b'], ascii(space)
    assert texts(prompt, label_words.spaced_spans(prompt)) == ['a', 'b'], ascii(space)


@pytest.mark.parametrize('text', ['👩🏽\u200d🚀', '🏳️\u200d🌈', 'می\u200cخواهم', 'ﬁne½'])
def test_joined_characters_are_one_word(text):
  assert texts(f'a {text}, b', label_words.word_spans(f'a {text}, b')) == [
    'a',
    text,
    'b',
  ]


def test_a_word_is_a_part_of_one_label_token():
  for prompt in (ODD, 'a red cat', '', ' ', '\n', ',.;', '日本,<x, {a} b)!,c'):
    tokens = label_words.label_spans(prompt)
    for start, end in label_words.word_spans(prompt):
      assert sum(first <= start and end <= last for first, last in tokens) == 1
      assert not re.search(r'[\s,.?!":;]', prompt[start:end])
