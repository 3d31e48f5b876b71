"""Data that change under a running training: an error that names the file, and never
an epoch that is silently shorter."""

import itertools
import pathlib

import numpy as np
import pytest
from util import NAME, make_record, train_model, write_split

from rahf.data import pipeline
from rahf.data.decoding import PipelineOptions
from rahf.data.records import open_split
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
  return pipeline.train_batches(
    [open_split(directory, 'train')],
    tokenizer,
    OPTIONS,
    batch_size=4,
    seed=0,
    start_step=0,
  )


def shard(directory: pathlib.Path, number: int) -> pathlib.Path:
  return directory / f'{NAME}-train.tfrecord-{number:05d}-of-{SHARDS:05d}'


def cut(path):
  path.write_bytes(path.read_bytes()[:-1])


def cut_at_a_record(path):
  """A whole file, as far as TFRecords can tell."""
  length = int.from_bytes(path.read_bytes()[:8], 'little') + 16
  path.write_bytes(path.read_bytes()[:length])


@pytest.mark.parametrize('spoil', [pathlib.Path.unlink, cut, cut_at_a_record])
def test_a_shard_that_changes_midway(directory, tokenizer, spoil):
  stream = batches(directory, tokenizer)
  next(stream)
  spoil(shard(directory, 2))
  # What was read ahead comes first; one epoch has ten batches.
  with pytest.raises(InputError, match=f'{shard(directory, 2)}.*verify'):
    list(itertools.islice(stream, 100))
  with pytest.raises(InputError, match=f'{shard(directory, 2)}'):
    batches(directory, tokenizer)


def test_every_epoch_has_every_record(directory, tokenizer):
  stream = batches(directory, tokenizer)
  for _ in range(3):
    epoch = np.concatenate([next(stream).index for _ in range(COUNT // 4)])
    np.testing.assert_array_equal(np.sort(epoch), np.arange(COUNT))
