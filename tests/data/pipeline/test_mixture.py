"""Mixtures of data sets."""

import collections
import itertools

import numpy as np
import pytest
import tensorflow as tf
from util import make_record, train_model, write_split

from rahf.data.pipeline import batches, decoding, mixture
from rahf.data.storage import records
from rahf.data.tokenizer import Tokenizer
from rahf.errors import InputError

SIZES = np.array([70, 5, 300])


def draw(positions, weights, seed=0):
  counts = mixture.shares(weights)
  sizes = SIZES[: len(counts)]
  return [
    tuple(int(x) for x in mixture.draw(tf.constant(p, tf.int64), counts, sizes, seed))
    for p in positions
  ]


@pytest.mark.parametrize(
  ('weights', 'expected'),
  [
    ((1,), [1024]),
    ((1, 1), [512, 512]),
    ((3.0, 1.0), [768, 256]),
    ((1, 1, 1), [342, 341, 341]),
    ((1000, 1), [1023, 1]),
  ],
)
def test_shares(weights, expected):
  assert mixture.shares(weights).tolist() == expected


def test_an_empty_share_is_refused():
  with pytest.raises(InputError, match=r'leave no examples of data set 1 .* 1/1024'):
    mixture.shares((5000, 1, 3000))


def test_each_block_has_the_shares_in_a_new_order():
  blocks = [
    [source for source, _, _ in draw(range(start, start + 1024), (2, 1, 1))]
    for start in (0, 1024)
  ]
  for block in blocks:
    assert collections.Counter(block) == {0: 512, 1: 256, 2: 256}
  assert blocks[0] != blocks[1]


def test_every_data_set_goes_through_its_own_epochs():
  drawn = draw(range(2048), (2, 1, 1))
  for source, size in enumerate(SIZES):
    count = {0: 1024, 1: 512, 2: 512}[source]
    epochs = collections.defaultdict(list)
    for s, epoch, example in drawn:
      if s == source:
        epochs[epoch].append(example)
    whole = [sorted(found) for found in epochs.values() if len(found) == size]
    assert len(whole) == count // size
    assert all(found == list(range(size)) for found in whole)


def test_a_single_data_set_keeps_its_order():
  """The same order as before mixtures were added."""
  seed = 3
  for position, (source, epoch, example) in enumerate(draw(range(100), (1,), seed)):
    assert source == 0
    assert epoch == position // 70
    key = tf.random.experimental.stateless_fold_in([seed, 1], epoch)
    expected = tf.random.experimental.index_shuffle(
      position % 70, key, tf.constant(69, tf.int64)
    )
    assert example == int(expected)


def test_batches_of_two_data_sets(tmp_path):
  """Three times as many from the first; `index` numbers both."""
  splits = []
  for name, count in (('one', 6), ('two', 4)):
    (tmp_path / name).mkdir()
    write_split(tmp_path / name, 'train', [make_record(i) for i in range(count)], 2)
    splits.append(records.open_split(tmp_path / name, 'train'))
  tokenizer = Tokenizer(train_model(tmp_path / 'a.model', '_0'))
  options = decoding.PipelineOptions(8, 16, 24, 'multi_head')

  def take(count, start=0):
    stream = batches.train_batches(
      splits,
      tokenizer,
      options,
      batch_size=64,
      seed=0,
      start_step=start,
      weights=(3, 1),
    )
    return [batch.index for batch in itertools.islice(stream, count)]

  found = np.concatenate(take(16))
  assert (found < 6).sum() == 768
  assert set(found) == set(range(10))
  np.testing.assert_array_equal(take(2, start=14), take(16)[14:])
  both = records.concatenate(splits)
  assert [record.prompt for record in both] == [
    make_record(i).prompt for i in (*range(6), *range(4))
  ]
  assert both[7] == splits[1][1]
