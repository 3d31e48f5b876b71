import bz2
import lzma
import pathlib
import struct

import numpy as np
import pytest
import tensorflow as tf
from etils import epath
from util import make_record, write_split

from rahf.data.storage import manifest, records
from rahf.data.storage.records import open_split
from rahf.errors import InputError


@pytest.fixture
def directory(tmp_path):
  folder = tmp_path / 'tiny' / '1.0.0'
  write_split(folder, 'train', [make_record(i) for i in range(7)], shards=3)
  return folder


def test_any_record_can_be_read(directory):
  split = records.open_split(directory, 'train')
  assert len(split) == 7
  for position in (6, 0, 3):
    assert split[position] == make_record(position)
  assert [record.uid for record in split] == [f'uid-{i}' for i in range(7)]
  with pytest.raises(IndexError):
    split[7]


def test_unannotated_fields_survive(tmp_path):
  record = make_record(0, keyword_labels=(), implausibility_map=b'')
  write_split(tmp_path / 'a', 'dev', [record])
  assert records.open_split(tmp_path / 'a', 'dev')[0] == record


def test_index_is_cached_and_checked_against_the_shards(directory):
  first = records.open_split(directory, 'train')
  kept = directory / 'train.index.npz'
  assert kept.exists()
  again = records.open_split(directory, 'train')
  np.testing.assert_array_equal(again.offset, first.offset)
  # Other shards under the same names: the index of the old ones is not used.
  new = [make_record(i, size=24) for i in range(4)]
  write_split(directory, 'train', new, shards=3)
  assert records.open_split(directory, 'train')[3] == new[3]


def test_a_read_only_directory_can_be_read(directory, monkeypatch):
  def refuse(*args, **kwargs):
    raise PermissionError('read-only')

  monkeypatch.setattr(type(epath.Path(directory)), 'write_bytes', refuse)
  assert records.open_split(directory, 'train')[2] == make_record(2)
  assert not (directory / 'train.index.npz').exists()


def test_word_counts_are_those_of_the_prompts(directory):
  prompts = ['a', 'a b, c', '"x"  y?']
  write_split(directory, 'dev', [make_record(0, prompt=p) for p in prompts])
  split = records.open_split(directory, 'dev')
  assert split.word_counts().tolist() == [1, 3, 2]
  assert split.word_counts().tolist() == [1, 3, 2]


def shard(directory, number=0):
  return directory / f'tiny-train.tfrecord-{number:05d}-of-00003'


def test_truncated_in_a_record(directory):
  file = shard(directory)
  file.write_bytes(file.read_bytes()[:-7])
  with pytest.raises(
    InputError, match=r'00000-of-00003 is truncated in record 2 .*copy'
  ):
    records.open_split(directory, 'train')


def test_truncated_between_records(directory):
  file = shard(directory)
  data = file.read_bytes()
  length = struct.unpack('<Q', data[:8])[0]
  file.write_bytes(data[: length + 16])
  with pytest.raises(
    InputError, match=r'has 1 records, but dataset_info\.json lists 3'
  ):
    records.open_split(directory, 'train')


def test_missing_shard_split_and_directory(directory, tmp_path):
  with pytest.raises(InputError, match=r"no split 'test', only \['train'\]"):
    records.open_split(directory, 'test')
  with pytest.raises(InputError, match='not a prepared data set'):
    records.open_split(tmp_path / 'nowhere', 'train')
  shard(directory, 1).unlink()
  with pytest.raises(InputError, match='00001-of-00003 cannot be opened'):
    records.open_split(directory, 'train')


def test_damaged_record_is_named(directory):
  split = records.open_split(directory, 'train')
  file = shard(directory)
  data = bytearray(file.read_bytes())
  data[int(split.offset[1]) + 40] ^= 0xFF
  file.write_bytes(data)
  assert split[0] == make_record(0)
  with pytest.raises(InputError, match=r'00000-of-00003, record 1 at byte \d+, cannot'):
    split[1]


def test_other_examples_are_refused():
  with pytest.raises(InputError, match=r"features \['image', .* are missing"):
    records.parse_record(b'')
  with pytest.raises(InputError, match=r'not a tf\.train\.Example'):
    records.parse_record(b'\xff\xff\xff')


@pytest.mark.parametrize('damaged', [0, 2, 5, 7, 11])
def test_undamaged_records_keep_their_positions(tmp_path, damaged):
  """Also after a damaged one, in its shard and the next."""
  write_split(tmp_path, 'train', [make_record(number) for number in range(12)], 2)
  split = open_split(tmp_path, 'train')
  path = pathlib.Path(split.files[split.shard[damaged]])
  data = bytearray(path.read_bytes())
  data[split.offset[damaged] + 40] ^= 1
  path.write_bytes(data)
  expected = [(n, f'uid-{n}') for n in range(12) if n != damaged]
  assert [(n, record.uid) for n, record in split.undamaged()] == expected
  counts = split.word_counts()
  assert counts[damaged] == 0
  assert (np.delete(counts, damaged) == 5).all()


def test_a_damaged_index_is_remade(tmp_path):
  write_split(tmp_path, 'train', [make_record(number) for number in range(3)])
  assert len(open_split(tmp_path, 'train')) == 3
  index = tmp_path / 'train.index.npz'
  whole = index.read_bytes()
  for content in (b'', whole[: len(whole) // 2]):
    index.write_bytes(content)
    assert len(open_split(tmp_path, 'train')) == 3
    assert index.read_bytes() == whole


def test_counts_that_differ_from_the_manifest_are_refused(tmp_path):
  write_split(tmp_path, 'train', [make_record(number) for number in range(3)])
  manifest.write(tmp_path, manifest.describe_all(tmp_path))
  assert len(open_split(tmp_path, 'train')) == 3
  write_split(tmp_path, 'train', [make_record(number) for number in range(2)])
  with pytest.raises(InputError, match=r'train has 2 records, manifest\.json 3'):
    open_split(tmp_path, 'train')


@pytest.mark.parametrize('kind', ['GZIP', 'ZLIB'])
def test_compressed_files_are_named(tmp_path, kind):
  path = tmp_path / 'a.tfrecord'
  with tf.io.TFRecordWriter(str(path), options=kind) as writer:
    for number in range(3):
      writer.write(b'%d' % number * 100)
  with pytest.raises(InputError, match=rf'a\.tfrecord is compressed \({kind}\)'):
    records.open_files([path])


@pytest.mark.parametrize(
  ('kind', 'data'),
  [
    ('bzip2', bz2.compress(b'records' * 9)),
    ('xz', lzma.compress(b'records' * 9)),
    ('Zstandard', b'\x28\xb5\x2f\xfd' + bytes(99)),
    ('zip', b'PK\3\4' + bytes(99)),
  ],
)
def test_files_that_other_programs_compressed_are_named(tmp_path, kind, data):
  (tmp_path / 'a.tfrecord').write_bytes(data)
  with pytest.raises(InputError, match=rf'a\.tfrecord is compressed \({kind}\)'):
    records.open_files([tmp_path / 'a.tfrecord'])


def test_a_length_that_looks_like_compression(tmp_path):
  """Records of 40,056 and 0x088b1f bytes start like ZLIB and GZIP files."""
  for length in (0x9C78, 0x088B1F):
    with tf.io.TFRecordWriter(str(tmp_path / 'a.tfrecord')) as writer:
      writer.write(bytes(length))
    found = records.open_files([tmp_path / 'a.tfrecord'])
    assert found.length.tolist() == [length]


def test_a_git_lfs_pointer_is_named(directory):
  pointer = 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n'
  shard(directory).write_text(pointer)
  with pytest.raises(InputError, match=r'is a Git LFS pointer.*git lfs pull'):
    open_split(directory, 'train')
