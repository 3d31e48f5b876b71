"""Invalid input is refused before anything is scored."""

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

from rahf import infer
from rahf.data.sources.source import Source, open_source
from rahf.errors import InputError
from rahf.inference.part_scorer import PartScorer


def test_invalid_inputs(job, tmp_path):
  def refused(given, message, **options):
    with pytest.raises(InputError, match=message):
      run(job(given, **options))
    assert not (tmp_path / 'out').exists()

  refused(tmp_path / 'nowhere', 'no such file or folder; give a folder of images')
  (tmp_path / 'empty').mkdir()
  refused(tmp_path / 'empty', 'contains no known files')
  folder = write_folder(tmp_path / 'images', prompts=False)
  refused(folder, r'no image has a text file next to it .* --prompts')
  table = write_table(tmp_path / 'p.csv', [{'uid': 'zzz', 'prompt': 'a'}])
  refused(folder, r'no image has a prompt in .*p\.csv', prompts=str(table))
  twice = [{'uid': '000', 'prompt': 'a'}, {'uid': '000', 'prompt': 'b'}]
  table = write_table(tmp_path / 'q.csv', twice)
  refused(folder, "two prompts for '000'", prompts=str(table))
  rows = write_table(tmp_path / 'r.csv', [{'image': 'a.png', 'prompt': 'a'}])
  refused(rows, 'only valid for a folder of images', prompts=str(table))
  refused(table, r'q\.csv needs a prompt column.* it has uid, prompt')
  only_header = tmp_path / 's.csv'
  only_header.write_text('image,prompt\n')
  refused(only_header, 'is empty')
  for suffix in ('.parquet', '.tar', '.tfrecord'):
    damaged = tmp_path / f'damaged{suffix}'
    damaged.write_bytes(b'not what the name says')
    refused(damaged, rf'damaged{suffix}')
  write_tar(folder / 't.tar', samples([1]))
  refused(folder, r'contains images, \.tar; give a folder or pattern of one kind')
  refused(tmp_path / 'x.zip', 'no such file')
  (tmp_path / 'x.zip').write_bytes(b'PK')
  refused(tmp_path / 'x.zip', 'is not a known kind')
  refused(rows, '--maps=gif is not one of none, png, npz', maps='gif')


def lines(*numbers: int) -> str:
  return ''.join(f'{{"image": "x.png", "prompt": "{n}"}}\n' for n in numbers)


@pytest.mark.parametrize('now', [(0, 1, 2, 3), (0, 1)])
def test_a_file_that_changes_while_it_is_read(now, tmp_path):
  """No row of it or of the next file is mistaken for another."""
  for number in range(2):
    (tmp_path / f'{number}.jsonl').write_text(lines(0, 1, 2))
  source = open_source(str(tmp_path))
  source.check_unchanged()
  (tmp_path / '0.jsonl').write_text(lines(*now))
  found = []

  def read():
    for position, load in source.read(lambda _: True):
      found.append((position, load().prompt))

  with pytest.raises(InputError, match='changed while being read; do not modify it'):
    read()
  assert found == [(number, str(number)) for number in range(3) if number in now]


def test_a_change_that_keeps_the_number_of_rows(job, tmp_path, monkeypatch):
  folder = write_folder(tmp_path / 'images')
  run_work = PartScorer.run

  def run_and_rename(self):
    run_work(self)
    (folder / '000.png').rename(folder / '999.png')

  monkeypatch.setattr(PartScorer, 'run', run_and_rename)
  with pytest.raises(InputError, match='images changed while being read'):
    run(job(folder))
  assert not (tmp_path / 'out/results.jsonl').exists()


@pytest.mark.parametrize('change', ['added', 'removed'])
def test_a_folder_that_changes_before_it_is_read(change, job, tmp_path, monkeypatch):
  folder = write_folder(tmp_path / 'images')
  read = Source.read

  def change_and_read(self, wanted):
    if change == 'added':
      (folder / '000b.png').write_bytes(b'')
    else:
      (folder / '003.png').unlink()
    return read(self, wanted)

  monkeypatch.setattr(Source, 'read', change_and_read)
  monkeypatch.setattr(infer, 'wait_until', no_wait)
  with pytest.raises(InputError, match='images changed while being read'):
    run(job(folder))
  assert not (tmp_path / 'out/results.jsonl').exists()


def test_missing_parts_are_not_waited_for(job, tmp_path, monkeypatch):
  folder = write_folder(tmp_path / 'images')
  monkeypatch.setattr(Source, 'read', lambda *_: iter(()))
  monkeypatch.setattr(infer, 'wait_until', no_wait)
  with pytest.raises(AssertionError, match='a part is missing'):
    run(job(folder))


def no_wait(condition):
  assert condition(), 'it would wait forever'


def test_hidden_folders_are_skipped(tmp_path):
  (tmp_path / 'a.jsonl').write_text(lines(0))
  write_folder(tmp_path / '.thumbnails', 1)
  write_table(tmp_path / '.git/x.csv', [{'image': 'a.png', 'prompt': 'a'}])
  assert open_source(str(tmp_path)).rows == 1


@pytest.mark.parametrize('cut', [-21, -24, -30])
def test_a_truncated_tar_is_refused_before_anything_is_scored(job, tmp_path, cut):
  path = write_tar(tmp_path / 't.tar', samples(range(COUNT)))
  path.write_bytes(path.read_bytes()[: 512 * cut])
  with pytest.raises(InputError, match=r't\.tar is not a complete tar archive'):
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
