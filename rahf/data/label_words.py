"""The words of a prompt: those that labels are for, and those that feedback names."""

import re

# RichHF-18K splits prompts at these eight characters and drops what is empty.
_LABEL_TOKEN = re.compile(r'[^,.?!":; ]+')
# White space, and the marks without a width that T5's tokenizer reads as a space. A
# joiner between the parts of an emoji or a Persian word is not among them.
_SPACE = r'\s\u200b\u200e\u200f\ufeff'
_WORD = re.compile(rf'[^,.?!":;{_SPACE}]+')
_SPACED = re.compile(rf'[^{_SPACE}]+')


def label_spans(prompt: str) -> list[tuple[int, int]]:
  """Returns the (start, end) character range of each word that has a label.

  These are RichHF-18K's words, in every data set. `str.split` counts differently for
  one real prompt in ten: punctuation separates words here, and of white space only the
  space does, so that a word may hold a line break, or be nothing else.
  """
  return _spans(_LABEL_TOKEN, prompt)


def label_tokens(prompt: str) -> list[str]:
  """Returns the words that RichHF-18K's `prompt_misalignment_label` refers to."""
  return [prompt[start:end] for start, end in label_spans(prompt)]


def word_spans(prompt: str) -> list[tuple[int, int]]:
  """Returns the range of each word that feedback names; none holds white space.

  Each is a part of one of `label_spans`, nearly always all of it.
  """
  return _spans(_WORD, prompt)


def spaced_spans(prompt: str) -> list[tuple[int, int]]:
  """Returns the range of each word between white space, punctuation included."""
  return _spans(_SPACED, prompt)


def _spans(pattern: re.Pattern[str], prompt: str) -> list[tuple[int, int]]:
  return [match.span() for match in pattern.finditer(prompt)]
