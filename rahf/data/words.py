"""The words of a prompt that carry keyword labels."""

import re

# RichHF-18K splits prompts at these eight characters and drops what is empty.
_WORD = re.compile(r'[^,.?!":; ]+')


def label_spans(prompt: str) -> list[tuple[int, int]]:
  """Returns the (start, end) character range of each label-carrying word.

  `str.split` counts differently for one real prompt in ten: punctuation inside
  this set separates words here, and other white space does not.
  """
  return [match.span() for match in _WORD.finditer(prompt)]


def label_tokens(prompt: str) -> list[str]:
  """Returns the words that RichHF-18K's `prompt_misalignment_label` refers to."""
  return [prompt[start:end] for start, end in label_spans(prompt)]
