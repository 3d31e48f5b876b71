"""Small splits, and batches of them."""

import itertools

import numpy as np
from util import write_split

from rahf.data.pipeline.batches import train_batches
from rahf.data.pipeline.decoding import PipelineOptions
from rahf.data.storage import records

PLAIN = PipelineOptions(image_size=16, text_length=40, target_length=48, augment=False)


def split_of(folder, *written):
  write_split(folder, 'dev', written)
  return records.open_split(folder, 'dev')


def take(split, tokenizer, count, options=PLAIN, **changes):
  arguments = {'batch_size': 4, 'seed': 0, 'start_step': 0} | changes
  batches = train_batches([split], tokenizer, options, **arguments)
  return list(itertools.islice(batches, count))


def assert_same(ours, theirs):
  for one, other in zip(ours, theirs, strict=True):
    for name in one._fields:
      np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
