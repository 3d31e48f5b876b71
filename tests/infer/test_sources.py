"""What is no input is refused, before anything is scored."""

import sys

import pytest
from inference_files import (
  COUNT,
  run,
  samples,
  write_folder,
  write_table,
  write_tar,
)

from rahf.errors import InputError


def test_inputs_that_are_none(job, tmp_path):
  def refused(given, message, **options):
    with pytest.raises(InputError, match=message):
      run(job(given, **options))
    assert not (tmp_path / 'out').exists()

  refused(tmp_path / 'nowhere', 'no such file or folder; give a folder of images')
  (tmp_path / 'empty').mkdir()
  refused(tmp_path / 'empty', 'holds nothing that is known')
  folder = write_folder(tmp_path / 'images', prompts=False)
  refused(folder, r'no image has a text file beside it .* --prompts')
  table = write_table(tmp_path / 'p.csv', [{'uid': 'zzz', 'prompt': 'a'}])
  refused(folder, r'no image has a prompt in .*p\.csv', prompts=str(table))
  twice = [{'uid': '000', 'prompt': 'a'}, {'uid': '000', 'prompt': 'b'}]
  table = write_table(tmp_path / 'q.csv', twice)
  refused(folder, "two prompts for '000'", prompts=str(table))
  rows = write_table(tmp_path / 'r.csv', [{'image': 'a.png', 'prompt': 'a'}])
  refused(rows, 'is for a folder of images', prompts=str(table))
  refused(table, r'q\.csv needs a column .* it has uid, prompt')
  only_header = tmp_path / 's.csv'
  only_header.write_text('image,prompt\n')
  refused(only_header, 'is empty')
  for suffix in ('.parquet', '.tar', '.tfrecord'):
    damaged = tmp_path / f'damaged{suffix}'
    damaged.write_bytes(b'not what the name says')
    refused(damaged, rf'damaged{suffix}')
  write_tar(folder / 't.tar', samples([1]))
  refused(folder, r'holds images, \.tar; give a folder or pattern of one kind')
  refused(tmp_path / 'x.zip', 'no such file')
  (tmp_path / 'x.zip').write_bytes(b'PK')
  refused(tmp_path / 'x.zip', 'is of no known kind')
  refused(rows, '--maps=gif is none of none, png, npz', maps='gif')


@pytest.mark.parametrize('cut', [-21, -24, -30])
def test_a_cut_tar_is_refused_before_anything_is_scored(job, tmp_path, cut):
  path = write_tar(tmp_path / 't.tar', samples(range(COUNT)))
  path.write_bytes(path.read_bytes()[: 512 * cut])
  with pytest.raises(InputError, match=r't\.tar is no complete tar archive'):
    run(job(path))


def test_missing_libraries_are_named(job, tmp_path, monkeypatch):
  rows = write_table(tmp_path / 'r.csv', [{'image': 'a.png', 'prompt': 'a'}])
  for name in ('pyarrow', 'pyarrow.parquet', 'tensorflow'):
    monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(InputError, match=r'parquet needs pyarrow.*rahf\[parquet\]'):
    run(job(rows, format='parquet'))
  (tmp_path / 'x.parquet').write_bytes(b'')
  with pytest.raises(InputError, match=r'parquet needs pyarrow.*rahf\[parquet\]'):
    run(job(tmp_path / 'x.parquet'))
  (tmp_path / 'x.tfrecord').write_bytes(b'')
  with pytest.raises(InputError, match=r'TFRecords need TensorFlow.*rahf\[train\]'):
    run(job(tmp_path / 'x.tfrecord'))
