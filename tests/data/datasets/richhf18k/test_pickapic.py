"""Images and prompts are found by uid, reading no more than needed."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rahf.data.datasets.richhf18k.pickapic import PickAPic
from rahf.errors import InputError


@pytest.fixture
def folder(release):
  """Six rows in row groups of two; `b` occurs in all three groups."""
  release.add_pair(('a', 'x0'), (b'A', b'x'), 'prompt a')
  release.add_pair(('x1', 'b'), (b'x', b'B'), 'prompt b')
  release.add_pair(('x2', 'x3'), (b'x', b'x'))
  release.add_pair(('x4', 'x5'), (b'x', b'x'))
  release.add_pair(('b', 'c'), (b'B2', b'C'), 'prompt c')
  release.add_pair(('b', 'b'), (b'B3', b'B4'), 'prompt b')
  return release.write(row_group_size=2).images


def test_either_side_is_found_and_the_first_location_wins(folder):
  found = PickAPic(folder, {'a', 'b', 'c', 'absent'})
  assert found.locations.keys() == {'a', 'b', 'c'}
  assert found.prompts == {'a': 'prompt a', 'b': 'prompt b', 'c': 'prompt c'}
  assert list(found.read(found.locations)) == [('a', b'A'), ('b', b'B'), ('c', b'C')]
  assert list(found.read(['c'])) == [('c', b'C')]


def test_repeats_and_differing_prompts_are_reported(folder):
  found = PickAPic(folder, {'a', 'b', 'c'})
  assert found.repeated == {
    'b': '4 places, first used: part.parquet row group 0 row 1 jpg_1'
  }
  assert list(found.conflicts) == ['b']
  assert found.conflicts['b'].startswith("'prompt b' used, not 'prompt c'")


def test_only_needed_columns_and_row_groups_are_read(folder, monkeypatch):
  reads = []
  scan, read = pq.ParquetFile.read_row_group, pq.ParquetFile.iter_batches

  def spy_scan(self, i, columns=None, **options):
    reads.append((i, tuple(columns)))
    return scan(self, i, columns=columns, **options)

  def spy_read(self, *args, row_groups, columns, **options):
    reads.append((*row_groups, tuple(columns)))
    return read(self, *args, row_groups=row_groups, columns=columns, **options)

  monkeypatch.setattr(pq.ParquetFile, 'read_row_group', spy_scan)
  monkeypatch.setattr(pq.ParquetFile, 'iter_batches', spy_read)
  found = PickAPic(folder, {'a', 'c'})
  light = ('image_0_uid', 'image_1_uid', 'caption')
  assert reads == [(0, light), (1, light), (2, light)]
  reads.clear()
  assert dict(found.read(['a', 'c'])) == {'a': b'A', 'c': b'C'}
  assert reads == [(0, ('jpg_0',)), (2, ('jpg_1',))]


def test_batches_within_a_row_group(release):
  for i in range(100):
    release.add_pair((f'u{i}', 'x'), (b'%d' % i, b'x'))
  found = PickAPic(
    release.write(row_group_size=100).images, {'u3', 'u31', 'u32', 'u99'}
  )
  expected = {'u3': b'3', 'u31': b'31', 'u32': b'32', 'u99': b'99'}
  assert dict(found.read(found.locations)) == expected


def test_null_image_is_empty_bytes(release):
  folder = release.add_pair(('a', 'b'), (None, b'B')).write().images
  assert dict(PickAPic(folder, {'a'}).read(['a'])) == {'a': b''}


def test_damaged_file_is_named(folder):
  path = folder / 'part.parquet'
  whole = path.read_bytes()
  path.write_bytes(whole[:-50])
  with pytest.raises(InputError, match=r'part\.parquet.*download it again'):
    PickAPic(folder, {'a'})
  # Image pages damaged, uids intact.
  path.write_bytes(whole)
  start = pq.ParquetFile(path).metadata.row_group(0).column(3).dictionary_page_offset
  path.write_bytes(whole[:start] + b'\xff' * 16 + whole[start + 16 :])
  found = PickAPic(folder, {'a'})
  with pytest.raises(
    ValueError, match=r'part\.parquet: row group 0.*download the file'
  ):
    list(found.read(['a']))


def test_missing_columns_are_named(folder):
  path = folder / 'part.parquet'
  pq.write_table(pq.read_table(path).drop_columns(['jpg_0', 'jpg_1']), path)
  with pytest.raises(InputError, match=r'no column jpg_0, jpg_1.*without images'):
    PickAPic(folder, {'a'})


def test_folder_without_parquet(tmp_path):
  with pytest.raises(InputError, match=r'no \.parquet file.*--prompts'):
    PickAPic(tmp_path, {'a'})


def rewritten(folder, **columns: pa.Array):
  """Replaces columns of the file."""
  path = folder / 'part.parquet'
  table = pq.read_table(path)
  for name, values in columns.items():
    table = table.set_column(table.column_names.index(name), name, values)
  pq.write_table(table, path, row_group_size=2)
  return folder


def test_images_in_hugging_faces_format(folder):
  packed = {
    name: pa.array(
      [
        image and {'bytes': image, 'path': None}
        for image in pq.read_table(folder / 'part.parquet').column(name).to_pylist()
      ]
    )
    for name in ('jpg_0', 'jpg_1')
  }
  found = PickAPic(rewritten(folder, **packed), {'a', 'b', 'c'})
  assert dict(found.read(found.locations)) == {'a': b'A', 'b': b'B', 'c': b'C'}


@pytest.mark.parametrize(
  'kind',
  [
    *(pa.binary(), pa.large_binary(), pa.large_string(), pa.string_view()),
    *(pa.binary_view(), pa.dictionary(pa.int32(), pa.binary())),
  ],
)
def test_text_of_other_types(folder, kind):
  table = pq.read_table(folder / 'part.parquet')
  names = ('image_0_uid', 'image_1_uid', 'caption')
  columns = {name: table.column(name).cast(kind) for name in names}
  found = PickAPic(rewritten(folder, **columns), {'a', 'c'})
  assert dict(found.read(found.locations)) == {'a': b'A', 'c': b'C'}
  assert found.prompts == {'a': 'prompt a', 'c': 'prompt c'}


def test_columns_of_other_kinds_and_twice(folder):
  with pytest.raises(InputError, match=r'column caption is int64.*Pick-a-Pic v1 has'):
    PickAPic(rewritten(folder, caption=pa.array(range(6))), {'a'})
  path = folder / 'part.parquet'
  table = pq.read_table(path)
  pq.write_table(table.append_column('jpg_0', table.column('jpg_1')), path)
  with pytest.raises(InputError, match='the column jpg_0 occurs twice'):
    PickAPic(folder, {'a'})


def test_a_git_lfs_pointer_is_named(folder):
  pointer = 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n'
  (folder / 'part.parquet').write_text(pointer)
  with pytest.raises(InputError, match=r'part\.parquet is a Git LFS pointer'):
    PickAPic(folder, {'a'})
