"""Label files are read completely or not at all, and errors name the position."""

import numpy as np
import pytest
import tensorflow as tf

from rahf.data.datasets.richhf18k import label_files
from rahf.errors import InputError


@pytest.fixture
def label_file(release):
  """A label file of three records, and their offsets."""
  for number in range(3):
    release.add('train', f'u{number}')
  path = release.write().labels / 'train.tfrecord'
  records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
  starts = np.cumsum([0] + [len(record) + 16 for record in records]).tolist()
  return path, starts


@pytest.mark.parametrize('behind', [1, 8, 11, 12, 40, -1])
def test_truncated_label_file_names_record_and_byte(label_file, behind):
  """Truncated in record 2: in its length, data or checksum."""
  path, starts = label_file
  cut = starts[2] + behind if behind > 0 else starts[3] + behind
  path.write_bytes(path.read_bytes()[:cut])
  with pytest.raises(InputError, match='download') as error:
    list(label_files.read(path))
  assert f'{path}: record 2 (counted from 0), at byte {starts[2]}' in str(error.value)


def test_changed_byte_is_found(label_file):
  path, starts = label_file
  data = bytearray(path.read_bytes())
  data[starts[1] + 50] ^= 1
  path.write_bytes(data)
  reader = label_files.read(path)
  assert next(reader).uid == 'u0'
  with pytest.raises(InputError, match=f'record 1 .* at byte {starts[1]} .* download'):
    next(reader)


def test_git_lfs_pointer_is_recognised(label_file):
  path, _ = label_file
  path.write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n')
  with pytest.raises(InputError, match='git lfs pull'):
    list(label_files.read(path))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'artifact_score': None}, r'record 0 .*no single float in artifact_score'),
    ({'artifact_map': None}, r'record 0 .*no single bytes in artifact_map'),
    ({'overall_score': b'high'}, r'no single float in overall_score'),
    ({'filename': b''}, r"no uid in filename ''"),
  ],
)
def test_record_of_another_kind_is_named(release, changes, message):
  path = release.add('train', 'a', **changes).write().labels / 'train.tfrecord'
  with pytest.raises(InputError, match=message):
    list(label_files.read(path))


def test_label_files_are_found_by_split(tmp_path):
  for name in ('richhf_train-0-of-2.tfrecord', 'richhf_train-1-of-2.tfrecord'):
    (tmp_path / name).touch()
  for name in ('dev.tfrecord', 'old_dev.tfrecord', 'latest.tfrecord', 'test.tfrecord'):
    (tmp_path / name).touch()
  found = label_files.find_files(tmp_path)
  names = {split: [path.name for path in paths] for split, paths in found.items()}
  assert names == {
    'train': ['richhf_train-0-of-2.tfrecord', 'richhf_train-1-of-2.tfrecord'],
    'dev': ['dev.tfrecord'],
    'test': ['test.tfrecord'],
  }
  (tmp_path / 'test.tfrecord').unlink()
  with pytest.raises(InputError, match=r'no test\.tfrecord; found dev\.tfrecord'):
    label_files.find_files(tmp_path)


def test_compressed_label_files_are_named(tmp_path):
  path = tmp_path / 'train.tfrecord'
  with tf.io.TFRecordWriter(str(path), options='GZIP') as writer:
    writer.write(b'x' * 100)
  with pytest.raises(InputError, match=r'train\.tfrecord is compressed \(GZIP\)'):
    list(label_files.read(path))
