"""Selects the records of a split that training takes."""

import numpy as np
from jaxtyping import Int64

from rahf.data.pipeline.decoding import PipelineOptions
from rahf.data.storage.records import RecordSplit
from rahf.errors import InputError


def select(
  split: RecordSplit, options: PipelineOptions, *, captions: bool
) -> Int64[np.ndarray, 'n']:
  """Returns the positions of the records that training takes, in their order.

  Args:
    captions: whether the texts are captions to predict; only the limits of words apply
      to them.

  Raises:
    InputError: there are none, or fewer than `options.limit`.
  """
  selected = _within_limits(split, options)
  if captions:  # What follows is about labels.
    return selected
  if options.aligned_only:
    selected = selected[split.misaligned_counts()[selected] == 0]
    if not len(selected):
      raise InputError(
        f'no prompt of {split.name} has words that are annotated and all aligned; set '
        'config.data.aligned_only to False, or train on other data'
      )
  return _limited(selected, split, options) if options.limit else selected


def _limited(
  selected: np.ndarray, split: RecordSplit, options: PipelineOptions
) -> np.ndarray:
  """Returns a random part of the positions, in their order."""
  if options.limit > len(selected):
    raise InputError(
      f'config.data.limit = {options.limit:,}, but {split.name} has only '
      f'{len(selected):,} examples to train on; lower it, or set it to 0 for all'
    )
  # The beginning of one permutation: a larger limit keeps what a smaller one has.
  order = np.random.default_rng(options.limit_seed).permutation(len(selected))
  return np.sort(selected[order[: options.limit]])


def _within_limits(split: RecordSplit, options: PipelineOptions) -> np.ndarray:
  """Returns the positions of the records within the word limits."""
  if options.min_words is None and options.max_words is None:
    return np.arange(len(split))
  counts = split.word_counts()
  low = options.min_words or 0
  high = np.inf if options.max_words is None else options.max_words
  selected = np.flatnonzero((low <= counts) & (counts <= high))
  if not len(selected):
    raise InputError(
      f'none of the {len(split)} prompts of {split.name} has {low} to {high} words; '
      'widen config.data.min_words and config.data.max_words; -1 means no limit'
    )
  return selected
