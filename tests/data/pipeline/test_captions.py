"""Captions among the records that the pipeline reads."""

import itertools

import numpy as np
import pytest
from util import make_record, train_model, write_split

from rahf.data.pipeline.batches import eval_batches, train_batches
from rahf.data.pipeline.decoding import PipelineOptions
from rahf.data.storage import records
from rahf.data.tokenizer import Tokenizer

LABELLED, CAPTIONED = 6, 4


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  return Tokenizer(train_model(tmp_path_factory.mktemp('model') / 'a.model', '_0'))


@pytest.fixture(scope='module')
def splits(tmp_path_factory):
  found = []
  for name, numbers in (('one', range(LABELLED)), ('two', range(10, 10 + CAPTIONED))):
    folder = tmp_path_factory.mktemp(name)
    write_split(folder, 'train', [make_record(i) for i in numbers], 2)
    found.append(records.open_split(folder, 'train'))
  return found


def options(**changes):
  return PipelineOptions(8, 40, 40, augment=False, **changes)


def take(splits, tokenizer, options, count=6):
  batches = train_batches(
    splits,
    tokenizer,
    options,
    batch_size=8,
    seed=0,
    start_step=0,
    weights=(1, 1),
    captions=(False, True),
  )
  return list(itertools.islice(batches, count))


@pytest.mark.parametrize('prompt', ['', 'a circle:'])
def test_a_caption_is_the_target_and_has_no_labels(splits, tokenizer, prompt):
  asked = [*tokenizer.encode(prompt).ids, 1]
  seen = set()
  for batch in take(splits, tokenizer, options(caption_prompt=prompt)):
    for row, index in enumerate(batch.index):
      if index < LABELLED:
        assert batch.map_mask[row].all()
        assert batch.score_mask[row].all()
        continue
      seen.add(int(index))
      text = splits[1][int(index) - LABELLED].prompt
      target = [*tokenizer.encode(text).ids, 1]
      np.testing.assert_array_equal(batch.target[row, : len(target)], target)
      assert not batch.target[row, len(target) :].any()
      np.testing.assert_array_equal(batch.text[row, -1, : len(asked)], asked)
      assert not batch.text[row, -1, len(asked) :].any()
      assert batch.keyword_mask[row]
      for name in ('map_mask', 'score_mask', 'maps', 'scores', 'word_end'):
        assert not getattr(batch, name)[row].any(), name
  assert seen == set(range(LABELLED, LABELLED + CAPTIONED))


def test_a_limit_is_of_labelled_examples(splits, tokenizer):
  found = np.concatenate(
    [one.index for one in take(splits, tokenizer, options(limit=2), 8)]
  )
  assert len({*found[found < LABELLED]}) == 2
  assert {*found[found >= LABELLED]} == set(range(LABELLED, LABELLED + CAPTIONED))


def test_a_caption_that_is_cut_has_no_end(splits, tokenizer):
  short = PipelineOptions(8, 40, 5, augment=False)
  (batch,) = eval_batches(splits[1], tokenizer, short, batch_size=6, captions=True)
  assert batch.truncated.tolist() == [True] * CAPTIONED + [False] * 2
  assert (batch.target[:CAPTIONED] > 1).all()
  # Rows that fill the last batch.
  assert batch.index[CAPTIONED:].tolist() == [-1, -1]
  assert not batch.keyword_mask[CAPTIONED:].any()
