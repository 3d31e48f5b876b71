"""Splits prompts into words: those that carry labels and those that feedback names."""

import re

# RichHF-18K splits prompts at these eight characters and drops empty words.
_LABEL_TOKEN = re.compile(r'[^,.?!":; ]+')
# White space and the zero-width characters that T5's tokenizer reads as a space. The
# zero-width joiner of emojis and Persian words is not one of them.
_SPACE = r'\s\u200b\u200e\u200f\ufeff'
_WORD = re.compile(rf'[^,.?!":;{_SPACE}]+')
_SPACED = re.compile(rf'[^{_SPACE}]+')


def label_spans(prompt: str) -> list[tuple[int, int]]:
  """Returns the (start, end) character range of each word that has a label.

  All data sets use RichHF-18K's words. `str.split` gives another count for one real
  prompt in ten: here punctuation separates words, and the only white space that does
  is the space, so a word may contain a line break, or consist of one.
  """
  return _spans(_LABEL_TOKEN, prompt)


def label_tokens(prompt: str) -> list[str]:
  """Returns the words that RichHF-18K's `prompt_misalignment_label` refers to."""
  return [prompt[start:end] for start, end in label_spans(prompt)]


def word_spans(prompt: str) -> list[tuple[int, int]]:
  """Returns the range of each word that feedback names; none contains white space.

  Each lies within one of `label_spans` and nearly always equals it.
  """
  return _spans(_WORD, prompt)


def spaced_spans(prompt: str) -> list[tuple[int, int]]:
  """Returns the range of each word between white space, punctuation included."""
  return _spans(_SPACED, prompt)


def _spans(pattern: re.Pattern[str], prompt: str) -> list[tuple[int, int]]:
  return [match.span() for match in pattern.finditer(prompt)]
