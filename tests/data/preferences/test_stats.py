"""Counts of preference pairs and their printed table."""

import pair_files
import pyarrow.parquet as pq
import pytest

from rahf.data.__main__ import main
from rahf.data.preferences import stats


@pytest.fixture
def folder(tmp_path):
  """Ten pairs of train, one of each kind; one of validation_unique."""
  tie = {'label_0': 0.5, 'label_1': 0.5, 'best_image_uid': 'tie'}
  second = {'label_0': 0.0, 'label_1': 1.0}
  rows = [
    pair_files.row(0, caption='a', num_example_per_prompt=2, model_0='model-c'),
    pair_files.row(1, caption='a', num_example_per_prompt=2, **tie),
    pair_files.row(2, best_image_uid='2-1', **second),
    pair_files.row(3),
    pair_files.row(4, has_label=False, **tie),
    pair_files.row(5, has_label=None, caption=None, num_example_per_prompt=None),
    # Two inconsistent ones, neither the first of its row group.
    pair_files.row(6),
    pair_files.row(7, best_image_uid='7-1'),
    pair_files.row(8, user_id=None, are_different=False, jpg_1=None),
    pair_files.row(9, label_1=1.0, jpg_0=None),
  ]
  pair_files.write(tmp_path / 'train-0.parquet', rows[:6])
  pair_files.write(tmp_path / 'train-1.parquet', rows[6:])
  pair_files.write(tmp_path / 'validation_unique.parquet', [pair_files.row()])
  return tmp_path


def test_counts(folder):
  counts, notes = stats.collect(folder)
  assert list(counts) == ['train', 'validation_unique']
  train = counts['train']
  assert (train.pairs, train.labelled, train.same) == (10, 8, 1)
  assert train.preferences == {1.0: 4, 0.5: 1, 0.0: 1}
  assert train.prompts == {'a', *(f'prompt {n}' for n in (2, 3, 4, 6, 7, 8, 9))}
  assert train.weight == len(train.prompts)
  assert train.users == {0, 1}
  assert train.models == {'model-a': 9, 'model-b': 10, 'model-c': 1}
  assert +train.missing == {
    **dict.fromkeys(('caption', 'has_label', 'num_example_per_prompt', 'user_id'), 1),
    'images': 2,
  }
  assert train.doubtful == {'invalid': [9], 'contradicted': [7]}
  path = folder / 'train-1.parquet'
  assert notes == [
    'train has 10 pairs, the release 583,747; unless you use a subset on purpose, '
    'files are missing',
    'train has 1 pairs without a preference, because of labels other than 1, 0 or 0, 1 '
    f'or .5, .5; first: {path}, row group 1, row 1',
    'train has 1 pairs without a preference, because of labels that contradict '
    f'best_image_uid; first: {path}, row group 0, row 1',
    'validation_unique has 1 pairs, the release 500; unless you use a subset on '
    'purpose, files are missing',
  ]


def test_a_complete_split_is_not_noted(tmp_path):
  rows = [pair_files.row(number % 20) for number in range(500)]
  pair_files.write(tmp_path / 'test_unique.parquet', rows, size=100)
  counts, notes = stats.collect(tmp_path)
  assert counts['test_unique'].pairs == 500
  assert notes == []


def test_images_are_not_read(folder):
  expected = stats.collect(folder)
  for path in folder.glob('*.parquet'):
    for group in range(pq.read_metadata(path).num_row_groups):
      for name in ('jpg_0', 'jpg_1'):
        pair_files.damage_column(path, group, name)
  assert stats.collect(folder) == expected


def test_files_without_images(folder):
  path = folder / 'validation_unique.parquet'
  pq.write_table(pq.read_table(path).drop_columns(['jpg_0', 'jpg_1']), path)
  counts, notes = stats.collect(folder, 'validation_unique')
  assert list(counts) == ['validation_unique']
  assert notes[0].startswith('validation_unique: its files have no images')


def test_command(folder, capfd):
  assert main(['pairs', str(folder)]) == 0
  printed, progress = capfd.readouterr()
  assert 'train: 100%' in progress
  rows = {line[:35].strip(): line[35:].split() for line in printed.splitlines()}
  assert rows['pairs'] == ['10', '1']
  assert rows['with a preference'] == ['6', '1']
  assert rows['image 0'] == ['4', '(66.7%)', '1', '(100.0%)']
  assert rows['tie'] == ['1', '(16.7%)', '0', '(0.0%)']
  assert rows['distinct prompts'] == ['8', '1']
  assert rows['missing images'] == ['2', '–']
  assert 'Note: train has 10 pairs, the release 583,747;' in printed

  assert main(['pairs', str(folder), '--split', 'validation_unique']) == 0
  assert 'train' not in capfd.readouterr().out


def test_mistakes_are_one_line(folder, capfd):
  assert main(['pairs', str(folder), '--split', 'validation']) == 2
  printed, error = capfd.readouterr()
  assert printed == ''
  assert error == (
    f"error: {folder} has no split 'validation', only train, validation_unique\n"
  )
