"""Pairs equal the files' content, and no more images are read than needed."""

import math

import numpy as np
import pair_files
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rahf.data.datasets.richhf18k.pickapic import PickAPic
from rahf.data.images import codec as images
from rahf.data.preferences import pairs
from rahf.errors import InputError


@pytest.fixture
def folder(tmp_path):
  """Seven pairs of train in two files, in row groups of two; one of validation."""
  rows = [pair_files.row(number) for number in range(7)]
  pair_files.write(tmp_path / 'data/train-00000-of-00002-0f.parquet', rows[:5])
  pair_files.write(tmp_path / 'data/train-00001-of-00002-1e.parquet', rows[5:])
  pair_files.write(
    tmp_path / 'data/validation-00000-of-00001-2d.parquet', [pair_files.row(7)]
  )
  return tmp_path


def _judge(**changes) -> tuple[float, bool, bool]:
  table = pa.Table.from_pylist([pair_files.row(**changes)], pair_files.SCHEMA)
  labels = pairs.parse_labels(table)
  return tuple(column.item() for column in labels)


def test_a_pair_has_the_content_of_its_row(folder):
  pair = pairs.open_pairs(folder, 'train')[3]
  row = pair_files.row(3)
  assert pair == pairs.Pair(
    ranking_id=1003,
    prompt='prompt 3',
    images=(row['jpg_0'], row['jpg_1']),
    uids=('3-0', '3-1'),
    models=('model-a', 'model-b'),
    labels=(1.0, 0.0),
    preference=1.0,
    has_label=True,
    are_different=True,
    num_example_per_prompt=1,
    user_id=1,
  )


def test_all_formats_decode(folder):
  decoded = [
    (images.open_image(data).format, images.decode_image(data).shape)
    for pair in pairs.open_pairs(folder, 'train')
    for data in pair.images
  ]
  assert decoded == [
    (pair_files.FORMATS[number % 3], (4, number + 1, 3)) for number in range(14)
  ]


def test_images_are_those_found_by_uid(assets):
  folder = assets / 'richhf_sample/pickapic'
  split = pairs.open_pairs(folder, 'train')
  found = {
    uid: data
    for pair in split
    for uid, data in zip(pair.uids, pair.images, strict=True)
  }
  assert len(found) == 15  # Seven of eleven pairs have one image twice.
  assert dict(PickAPic(folder, found).read(found)) == found


def test_positions_and_ranges_are_the_order_of_iteration(folder):
  split = pairs.open_pairs(folder, 'train')
  assert len(split) == 7
  assert split.starts.tolist() == [0, 2, 4, 5, 7]
  everything = list(split)
  assert [pair.ranking_id for pair in everything] == list(range(1000, 1007))
  assert [split[position] for position in range(7)] == everything
  for start in range(8):
    for stop in range(start, 8):
      assert list(split.read(start, stop)) == everything[start:stop]
  assert split.where(6) == f'{split.groups[-1][0]}, row group 0, row 1'
  for position in (-1, 7):
    with pytest.raises(IndexError, match=f'pair {position} of 7 in train'):
      split[position]


def test_row_groups_without_rows(tmp_path):
  rows = [pair_files.row(number) for number in range(2)]
  with pq.ParquetWriter(tmp_path / 'train.parquet', pair_files.SCHEMA) as writer:
    for part in (rows[:0], rows[:1], rows[:0], rows[1:]):
      writer.write_table(pa.Table.from_pylist(part, pair_files.SCHEMA))
  split = pairs.open_pairs(tmp_path, 'train')
  assert len(split) == 2
  assert list(split) == [split[0], split[1]]
  assert [pair.ranking_id for pair in split] == [1000, 1001]
  assert split.where(1).endswith(f'row group {len(split.groups) - 1}, row 0')


def test_missing_images_are_counted_from_the_footers(tmp_path):
  rows = [
    pair_files.row(0, jpg_1=None),
    pair_files.row(1),
    pair_files.row(2, jpg_0=None),
  ]
  pair_files.write(tmp_path / 'train.parquet', rows)
  assert pairs.open_pairs(tmp_path, 'train').count_missing_images() == 2
  pair_files.write(tmp_path / 'test.parquet', rows, write_statistics=False)
  assert pairs.open_pairs(tmp_path, 'test').count_missing_images() is None


def test_a_row_group_of_many_batches(tmp_path):
  rows = [pair_files.row(number) for number in range(40)]
  pair_files.write(tmp_path / 'test_unique.parquet', rows, size=40)
  split = pairs.open_pairs(tmp_path, 'test_unique')
  for start, stop in ((0, 40), (3, 5), (15, 17), (16, 32), (33, 40)):
    found = [pair.images for pair in split.read(start, stop)]
    assert found == [(row['jpg_0'], row['jpg_1']) for row in rows[start:stop]]


@pytest.mark.parametrize(
  ('label_0', 'label_1', 'best', 'expected'),
  [
    (1, 0, '0-0', 1.0),
    (0, 1, '0-1', 0.0),
    (0.5, 0.5, 'tie', 0.5),
    (0.5, 0.5, '0-0', 0.5),
    (0.5, 0.5, None, 0.5),
    # The best of more than two images may be another, which decides nothing.
    (1, 0, 'another', 1.0),
    (0, 1, None, 0.0),
  ],
)
def test_preference_is_of_image_0(label_0, label_1, best, expected):
  found = _judge(label_0=label_0, label_1=label_1, best_image_uid=best)
  assert found == (expected, False, False)


@pytest.mark.parametrize(
  'labels', [(1, 1), (0, 0), (0.7, 0.3), (2, -1), (None, 0), (1, None), (None, None)]
)
def test_other_labels_are_invalid(labels):
  preference, *flags = _judge(label_0=labels[0], label_1=labels[1])
  assert math.isnan(preference)
  assert flags == [True, False]


@pytest.mark.parametrize(('label', 'best'), [(1, '0-1'), (0, '0-0')])
def test_labels_that_contradict_the_best_image(label, best):
  preference, *flags = _judge(label_0=label, label_1=1 - label, best_image_uid=best)
  assert math.isnan(preference)
  assert flags == [False, True]


def test_one_image_twice_contradicts_nothing():
  assert _judge(image_1_uid='0-0') == (1.0, False, False)


@pytest.mark.parametrize('has_label', [False, None])
@pytest.mark.parametrize('changes', [{}, {'label_0': 7.0}, {'best_image_uid': '0-1'}])
def test_unlabelled_pairs_have_no_preference(has_label, changes):
  preference, *flags = _judge(has_label=has_label, **changes)
  assert math.isnan(preference)
  assert flags == [False, False]


def test_nulls_and_unreadable_images(tmp_path):
  nulls = dict.fromkeys(pair_files.SCHEMA.names)
  rows = [nulls, pair_files.row(1, jpg_0=b'no image', has_label=False)]
  pair_files.write(tmp_path / 'test/0.parquet', rows)
  empty, broken = pairs.open_pairs(tmp_path, 'test')
  assert empty[:5] == (None, '', (b'', b''), ('', ''), ('', ''))
  assert np.isnan([*empty.labels, empty.preference]).all()
  assert empty[7:] == (False, None, None, None)
  # Pairs with has_label False keep their stored labels.
  assert broken.labels == (1.0, 0.0)
  assert math.isnan(broken.preference)
  assert broken.images == (b'no image', pair_files.picture(3))
  for data in (*empty.images, broken.images[0]):
    with pytest.raises(images.ImageError, match='not a PNG, JPEG or WEBP'):
      images.decode_image(data)


@pytest.mark.parametrize(
  ('path', 'split'),
  [
    ('validation-00000-of-00001-3d40ea403ddbb2d4.parquet', 'validation'),
    ('validation_unique-00000-of-00001.parquet', 'validation_unique'),
    ('test.parquet', 'test'),
    ('train_0003.parquet', 'train'),
    ('data/test_unique/0000.parquet', 'test_unique'),
    # The file's name takes precedence over its folder's.
    ('train/test_unique-0.parquet', 'test_unique'),
  ],
)
def test_splits_by_name_or_folder(tmp_path, path, split):
  pair_files.write(tmp_path / path, [pair_files.row()])
  assert pairs.split_files(tmp_path) == {split: [tmp_path / path]}
  assert len(pairs.open_pairs(tmp_path, split)) == 1


@pytest.mark.parametrize(
  'name',
  ['training.parquet', 'test_uniques.parquet', 'dev.parquet', 'old_train.parquet'],
)
def test_files_of_unknown_splits_are_refused(tmp_path, name):
  pair_files.write(tmp_path / 'train.parquet', [pair_files.row()])
  pair_files.write(tmp_path / name, [pair_files.row()])
  with pytest.raises(
    InputError, match=rf'{name} belongs to no known split.*move it out'
  ):
    pairs.open_pairs(tmp_path, 'train')


def test_missing_files_and_splits_are_named(folder, tmp_path):
  with pytest.raises(InputError, match=r"no split 'dev', only train, validation$"):
    pairs.open_pairs(folder, 'dev')
  with pytest.raises(InputError, match=r'absent: no \.parquet file below it'):
    pairs.open_pairs(tmp_path / 'absent', 'train')
  pair_files.write(tmp_path / 'test.parquet', [])
  with pytest.raises(InputError, match=r'split test of .* has no pairs'):
    pairs.open_pairs(tmp_path, 'test')


def test_a_truncated_file_is_named(folder):
  (path,) = folder.rglob('train-00001*')
  path.write_bytes(path.read_bytes()[:-50])
  with pytest.raises(InputError, match=r'train-00001.*not a complete.*download it'):
    pairs.open_pairs(folder, 'train')
  assert len(pairs.open_pairs(folder, 'validation')) == 1


def test_damaged_images_are_named_and_the_rest_is_read(folder):
  (path,) = folder.rglob('train-00000*')
  intact = list(pairs.open_pairs(folder, 'train'))
  pair_files.damage_column(path, 1, 'jpg_1')
  split = pairs.open_pairs(folder, 'train')
  with pytest.raises(InputError, match=r'train-00000.*: row group 1 .*download'):
    list(split)
  assert list(split.read(0, 2)) + list(split.read(4, 7)) == intact[:2] + intact[4:]
  uids = [uid for t in split.tables() for uid in t['image_1_uid'].to_pylist()]
  assert uids == [pair.uids[1] for pair in intact]


def test_a_changed_byte_of_an_image_fails_its_checksum(tmp_path):
  path = tmp_path / 'train.parquet'
  image = bytes(range(256)) * 8
  plain = {'use_dictionary': False, 'compression': 'none', 'write_statistics': False}
  pair_files.write(
    path, [pair_files.row(jpg_0=image)], write_page_checksum=True, **plain
  )
  whole = path.read_bytes()
  assert whole.count(image) == 1
  middle = whole.index(image) + 1000
  path.write_bytes(whole[:middle] + b'!' + whole[middle + 1 :])
  with pytest.raises(InputError, match=r'row group 0 cannot be read .*CRC'):
    pairs.open_pairs(tmp_path, 'train')[0]


def test_other_damage_is_named(folder):
  (path,) = folder.rglob('train-00000*')
  pair_files.damage_column(path, 2, 'caption')
  with pytest.raises(InputError, match=r'train-00000.*: row group 2 .*download'):
    list(pairs.open_pairs(folder, 'train').tables())


def test_without_images_everything_but_pairs_is_read(folder):
  (path,) = folder.rglob('validation*')
  pq.write_table(pq.read_table(path).drop_columns(['jpg_0', 'jpg_1']), path)
  split = pairs.open_pairs(folder, 'validation')
  (table,) = split.tables(['caption', 'ranking_id'])
  assert table.to_pylist() == [{'caption': 'prompt 7', 'ranking_id': 1007}]
  with pytest.raises(InputError, match=r'no column jpg_0, jpg_1; use .* with images'):
    split[0]


def test_missing_and_foreign_columns_are_named(folder):
  (path,) = folder.rglob('validation*')
  table = pq.read_table(path)
  pq.write_table(table.drop_columns(['model_1', 'user_id']), path)
  with pytest.raises(InputError, match='no column user_id, model_1; add it, with'):
    pairs.open_pairs(folder, 'validation')
  index = table.column_names.index('label_0')
  pq.write_table(table.set_column(index, 'label_0', pa.array(['first'])), path)
  with pytest.raises(InputError, match='column label_0 is string, not double'):
    pairs.open_pairs(folder, 'validation')[0]


def test_large_and_dictionary_types_are_read(folder):
  (path,) = folder.rglob('validation*')
  (expected,) = pairs.open_pairs(folder, 'validation')
  table = pq.read_table(path)
  for name, changed in (
    ('jpg_0', pa.large_binary()),
    ('caption', pa.large_string()),
    ('model_0', pa.dictionary(pa.int32(), pa.string())),
    ('has_label', pa.int64()),
  ):
    index = table.column_names.index(name)
    table = table.set_column(index, name, table[name].cast(changed))
  pq.write_table(table, path)
  assert list(pairs.open_pairs(folder, 'validation')) == [expected]


def test_images_of_one_row_group_at_a_time(folder, monkeypatch):
  groups = []
  read = pq.ParquetFile.iter_batches

  def spy(self, *args, row_groups, columns, **options):
    groups.append((*row_groups, *columns))
    return read(self, *args, row_groups=row_groups, columns=columns, **options)

  monkeypatch.setattr(pq.ParquetFile, 'iter_batches', spy)
  split = pairs.open_pairs(folder, 'train')
  list(split.tables())
  split.count_missing_images()
  assert groups == []
  stream = iter(split)
  for _ in range(3):
    next(stream)
  assert groups == [(0, 'jpg_0', 'jpg_1'), (1, 'jpg_0', 'jpg_1')]


def test_images_in_hugging_faces_format(folder):
  (path,) = folder.rglob('validation*')
  expected = [*pairs.open_pairs(folder, 'validation')]
  table = pq.read_table(path)
  for name in ('jpg_0', 'jpg_1'):
    images = [{'bytes': b, 'path': 'x'} for b in table.column(name).to_pylist()]
    table = table.set_column(table.column_names.index(name), name, pa.array(images))
  pq.write_table(table, path)
  found = [*pairs.open_pairs(folder, 'validation')]
  assert [pair.images for pair in found] == [pair.images for pair in expected]
  assert all(image for pair in found for image in pair.images)


def test_a_duplicate_column(folder):
  (path,) = folder.rglob('validation*')
  table = pq.read_table(path)
  pq.write_table(table.append_column('caption', table.column('model_0')), path)
  with pytest.raises(InputError, match='the column caption occurs twice'):
    pairs.open_pairs(folder, 'validation')
