"""verify finds all violations of the schema."""

import json
import math
import shutil

import numpy as np
import pytest
from util import write_split

from rahf.data import label_words, schema
from rahf.data.datasets.richhf18k.builder import prepare_richhf18k
from rahf.data.images.codec import encode_png
from rahf.data.quality import verify
from rahf.data.storage.records import open_split
from rahf.errors import InputError

PROMPT = 'a cat, asleep'


@pytest.fixture
def record(picture):
  return schema.Record(
    uid='u',
    image=picture,
    prompt=PROMPT,
    tokens=tuple(label_words.label_tokens(PROMPT)),
    keyword_labels=(1, 0, 1),
    scores=(0.0, 0.5, 1.0, math.nan),
    implausibility_map=encode_png(np.zeros((2, 2), np.uint8)),
    misalignment_map=b'',
  )


def test_good_records_pass(record):
  assert list(verify.check_record(record)) == []
  assert list(verify.check_record(record._replace(keyword_labels=()))) == []


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'uid': ''}, 'uid is empty'),
    ({'image': b''}, 'image: not a PNG, JPEG or WEBP'),
    ({'misalignment_map': b'text'}, 'misalignment_map: not a PNG'),
    ({'tokens': ('a', 'cat,', 'asleep')}, "tokens ('a', 'cat,', 'asleep') are not"),
    ({'keyword_labels': (1, 0)}, '2 keyword_labels, 3 tokens'),
    ({'keyword_labels': (1, 0, 2)}, 'keyword_labels (1, 0, 2) other than'),
    ({'scores': (0.5, 1.25, 0.5, 0.5)}, 'scores (0.5, 1.25, 0.5, 0.5) outside'),
    ({'scores': (0.5, 0.5)}, '2 scores, not 4'),
  ],
)
def test_each_violation_is_reported(record, changes, message):
  (problem,) = verify.check_record(record._replace(**changes))
  assert problem.startswith(message)


@pytest.fixture
def directory(release, tmp_path):
  for split, number in (('train', 3), ('dev', 1), ('test', 1)):
    for index in range(number):
      release.add(split, f'{split}-{index}')
  release.write()
  return prepare_richhf18k(
    tmp_path / 'out', labels=release.labels, images=release.images
  )[0]


def _shard(directory, split):
  (path,) = directory.glob(f'*-{split}.tfrecord-*')
  return path


def test_prepared_directory_is_valid(directory):
  counts = {'train': 3, 'dev': 1, 'test': 1}
  assert verify.verify(directory) == (counts, [])
  assert verify.verify(directory.parents[1]) == (counts, [])


def test_damage_is_found_and_the_rest_still_read(directory):
  path = _shard(directory, 'train')
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1  # In the second record of three.
  path.write_bytes(data)
  counts, (shard, problem) = verify.verify(directory)
  assert counts == {'train': 2, 'dev': 1, 'test': 1}
  assert shard == f'{path} has a different SHA-256 checksum; copy it again'
  assert path.name in problem
  assert 'record 1 at byte' in problem


def test_truncated_missing_and_repeated_shards_are_found(directory):
  train = _shard(directory, 'train')
  train.write_bytes(train.read_bytes()[:-3])
  shutil.copy(_shard(directory, 'test'), _shard(directory, 'dev'))
  counts, problems = verify.verify(directory)
  assert counts == {'train': 0, 'dev': 1, 'test': 1}
  assert len(problems) == 4
  # Shards are checked first.
  assert 'dev.tfrecord' in problems[0]
  assert f'{train} has' in problems[1]
  assert train.name in problems[2]
  assert 'is truncated' in problems[2]
  assert problems[3].startswith("uid 'test-0' is not unique")
  train.unlink()
  _, problems = verify.verify(directory)
  assert f'{train} is missing; copy it again' in problems


def test_a_shard_of_another_version_is_found(release, directory, tmp_path):
  """It is valid and has the same number of records."""
  other = prepare_richhf18k(
    tmp_path / 'other', labels=release.labels, images=release.images
  )[0]
  shard = _shard(directory, 'test')
  records = [record._replace(uid='new') for record in open_split(other, 'test')]
  write_split(tmp_path / 'written', 'test', records)
  (written,) = (tmp_path / 'written').glob('*.tfrecord*')
  shutil.copy(written, shard)
  (problem,) = verify.verify(directory)[1]
  assert f'{shard} has' in problem


def test_superfluous_shards_are_found(directory):
  extra = directory / 'more-train.tfrecord-00000-of-00001'
  extra.write_bytes(b'')
  (problem,) = verify.verify(directory)[1]
  assert problem == f'{extra} is not in manifest.json; move it away'


def test_data_prepared_by_other_tools_need_no_manifest(directory):
  other = directory.parents[1] / 'other/1.0.0'
  shutil.copytree(directory, other)
  (other / 'manifest.json').unlink()
  assert verify.verify(other)[1] == []
  (directory / 'manifest.json').unlink()
  problems = verify.verify(directory)[1]
  assert [problem.split(': ')[1].split(';')[0] for problem in problems] == [
    'train has 3 records, the release 15,810',
    'dev has 1 records, the release 995',
    'test has 1 records, the release 955',
  ]
  (directory / 'manifest.json').write_text('{')
  with pytest.raises(InputError, match=r'manifest\.json cannot be read'):
    verify.verify(directory)


def test_number_of_records_is_compared(directory):
  path = directory / 'dataset_info.json'
  info = json.loads(path.read_text())
  for split in info['splits']:
    if split['name'] == 'train':
      split['shardLengths'] = ['4']
  path.write_text(json.dumps(info))
  _, (problem,) = verify.verify(directory)
  assert 'has 3 records, but dataset_info.json lists 4' in problem


def test_other_directories_are_refused(tmp_path, directory):
  with pytest.raises(InputError, match='no such folder'):
    verify.verify(tmp_path / 'absent')
  (tmp_path / 'empty').mkdir()
  with pytest.raises(InputError, match=r'empty: give one .* no dataset_info\.json'):
    verify.verify(tmp_path / 'empty')
  shutil.copytree(directory, tmp_path / 'out/second')
  with pytest.raises(InputError, match=r'give one directory .*1\.0\.0, .*second'):
    verify.verify(tmp_path / 'out')
