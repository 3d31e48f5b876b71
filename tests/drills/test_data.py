"""Data that change during training give an error that names the file, never a silently
shorter epoch."""

import itertools
import os
import pathlib
import time

import numpy as np
import pytest
import tensorflow as tf
from util import NAME, make_record, train_model, write_split

import runs
import tiny
from rahf.data.pipeline.batches import train_batches
from rahf.data.pipeline.decoding import PipelineOptions
from rahf.data.storage.records import RecordSplit, open_split
from rahf.data.tokenizer import Tokenizer
from rahf.errors import InputError

COUNT, SHARDS = 40, 4
OPTIONS = PipelineOptions(
  image_size=16, text_length=32, target_length=40, augment=False
)


@pytest.fixture
def directory(tmp_path):
  records = [make_record(number) for number in range(COUNT)]
  write_split(tmp_path, 'train', records, SHARDS)
  return tmp_path


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  return Tokenizer(train_model(tmp_path_factory.mktemp('t') / 't.model', '_0'))


def batches(directory, tokenizer):
  return train_batches(
    [open_split(directory, 'train')],
    tokenizer,
    OPTIONS,
    batch_size=4,
    seed=0,
    start_step=0,
  )


def shard(directory: pathlib.Path, number: int) -> pathlib.Path:
  return directory / f'{NAME}-train.tfrecord-{number:05d}-of-{SHARDS:05d}'


# Files are cut in place: writing them anew would empty them for a moment, in which
# prefetching threads would read records that are valid before and after it.


def cut(path):
  os.truncate(path, path.stat().st_size - 1)


def cut_at_a_record(path):
  """Truncates a file so that it still looks like valid TFRecords."""
  os.truncate(path, int.from_bytes(path.read_bytes()[:8], 'little') + 16)


@pytest.mark.parametrize('spoil', [pathlib.Path.unlink, cut, cut_at_a_record])
def test_a_shard_that_changes_midway(directory, tokenizer, spoil):
  stream = batches(directory, tokenizer)
  next(stream)
  spoil(shard(directory, 2))
  # Prefetched batches come first; one epoch has ten batches.
  with pytest.raises(InputError, match=f'{shard(directory, 2)}.*verify'):
    list(itertools.islice(stream, 100))
  with pytest.raises(InputError, match=f'{shard(directory, 2)}'):
    batches(directory, tokenizer)


def test_every_epoch_has_every_record(directory, tokenizer):
  stream = batches(directory, tokenizer)
  for _ in range(3):
    epoch = np.concatenate([next(stream).index for _ in range(COUNT // 4)])
    np.testing.assert_array_equal(np.sort(epoch), np.arange(COUNT))


@pytest.fixture
def slow_disk(monkeypatch):
  """Returns a function that delays every read of a training record by some seconds."""
  read = RecordSplit.read_serialized

  def delay(seconds):
    def read_slowly(self, position):
      def wait(data):
        time.sleep(seconds)
        return data

      data = read(self, position)
      if self.name != 'train':
        return data
      return tf.ensure_shape(tf.numpy_function(wait, [data], tf.string), [])

    monkeypatch.setattr(RecordSplit, 'read_serialized', read_slowly)

  return delay


def test_a_slow_disk_gives_the_same_batches(directory, tokenizer, slow_disk):
  expected = list(itertools.islice(batches(directory, tokenizer), 15))
  slow_disk(0.03)
  found = list(itertools.islice(batches(directory, tokenizer), 15))
  for one, other in zip(found, expected, strict=True):
    for values, others in zip(one, other, strict=True):
      np.testing.assert_array_equal(values, others)


def test_the_metrics_log_shows_waiting_for_the_disk(data_dir, tmp_path, slow_disk):
  config = tiny.get_config(data_dir)
  # Some batches are read while the first step compiles.
  config.train.update(steps=12, checkpoint_every=12)
  config.eval.every = 100
  config.review.page = 0
  slow_disk(0.4)
  runs.run_training(config, tmp_path)
  rows = [row for row in runs.read_metrics_log(tmp_path) if 'input_wait' in row]
  assert np.mean([row['input_wait'] for row in rows[-3:]]) > 0.5
