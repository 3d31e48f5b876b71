"""How names in a table of prompts match images."""

import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rahf.data.datasets.joining.prompt_table import FilePrompts, Row, read
from rahf.errors import InputError


def table(path: pathlib.Path, *rows: dict) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == '.parquet':
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
  else:
    path.write_text('\n'.join(map(json.dumps, rows)), encoding='utf-8-sig')
  return path


def find(table: pathlib.Path, folder: pathlib.Path, *names: str) -> list[str | None]:
  prompts = FilePrompts(table, folder)
  found = [prompts.find(folder / name) for name in names]
  return [one and one.prompt for one in found]


@pytest.mark.parametrize('suffix', ['.jsonl', '.parquet'])
@pytest.mark.parametrize('name', ['image', 'path', 'file_name', 'filename'])
def test_columns_have_the_same_names_as_in_inputs(tmp_path, suffix, name):
  rows = [{name: 'x/a.png', 'id': 7, 'caption': 'red', 'score': float('nan')}]
  path = table(tmp_path / f't{suffix}', *rows)
  assert [*read(path)] == [Row('', 'x/a.png', 'red')]
  path = table(tmp_path / f't{suffix}', {'id': 7, 'prompt': 'red', 'caption': 'x'})
  assert [*read(path)] == [Row('7', '', 'red')]


def test_a_path_takes_precedence_over_a_uid(tmp_path):
  path = table(tmp_path / 't.jsonl', {'uid': 'a', 'path': 'x/b.png', 'prompt': 'red'})
  assert [*read(path)] == [Row('a', 'x/b.png', 'red')]
  # The path names the file, whatever the uid.
  assert find(path, tmp_path, 'x/b.png', 'a.png') == ['red', None]


def test_columns_of_bytes(tmp_path):
  """Text may be stored as bytes; a column of images does not name them."""
  row = {'uid': b'a', 'image': b'\x89PNG', 'prompt': 'grün'.encode()}
  assert [*read(table(tmp_path / 't.parquet', row))] == [Row('a', '', 'grün')]
  row['image'] = {'bytes': b'\x89PNG', 'path': 'a.png'}
  assert [*read(table(tmp_path / 't.parquet', row))] == [Row('a', '', 'grün')]


def test_a_bare_name_means_all_files_of_that_name(tmp_path):
  rows = [{'uid': 'a', 'prompt': 'red'}, {'uid': 'v1.5', 'prompt': 'blue'}]
  found = find(
    table(tmp_path / 't.jsonl', *rows),
    tmp_path / 'images',
    *('a.png', 'm1/a.jpg', 'm2/a.png', 'v1.5.png', 'v1.png', 'b.png'),
  )
  assert found == ['red', 'red', 'red', 'blue', None, None]


def test_an_extension_is_part_of_the_name(tmp_path):
  rows = [{'path': 'a.png', 'prompt': 'red'}, {'path': 'a.jpg', 'prompt': 'blue'}]
  path = table(tmp_path / 't.jsonl', *rows)
  assert find(path, tmp_path, 'a.png', 'a.jpg', 'a.webp') == ['red', 'blue', None]
  path = table(tmp_path / 't.jsonl', *rows, {'path': 'a', 'prompt': 'green'})
  with pytest.raises(ValueError, match=r'several prompts for it: a\.png, a'):
    find(path, tmp_path, 'a.png')


@pytest.mark.parametrize('name', ['m1/a.png', './m1/../m1//a.png', 'm1/a'])
def test_a_path_means_one_folder(tmp_path, name):
  path = table(tmp_path / 'images/t.jsonl', {'file_name': name, 'prompt': 'red'})
  names = ('m1/a.png', 'm2/a.png', 'a.png', 'x/m1/a.png', 'm1/b.png')
  assert find(path, tmp_path / 'images', *names) == ['red', *[None] * 4]
  assert find(path, tmp_path / 'images/m2', 'a.png') == [None]


def test_among_paths_a_bare_name_means_the_top_folder(tmp_path):
  rows = [{'path': 'm1/a.png', 'prompt': 'red'}, {'path': 'a.png', 'prompt': 'blue'}]
  path = table(tmp_path / 't.jsonl', *rows)
  found = find(path, tmp_path, 'a.png', 'm1/a.png', 'm2/a.png')
  assert found == ['blue', 'red', None]


def test_paths_relative_to_the_table_and_absolute_paths(tmp_path, monkeypatch):
  folder = tmp_path / 'data/images'
  for name, place in (
    ('images/m1/a.png', 'data/t.jsonl'),
    ('../images/m1/a.png', 'data/tables/t.jsonl'),
    (f'{folder}/m1/a.png', 'elsewhere/t.jsonl'),
  ):
    path = table(tmp_path / place, {'path': name, 'prompt': 'red'})
    assert find(path, folder, 'm1/a.png', 'm2/a.png') == ['red', None]
  # Also if the folder is relative to the working directory.
  monkeypatch.chdir(folder.parent)
  assert find(path, pathlib.Path('images'), 'm1/a.png', 'm2/a.png') == ['red', None]


def test_two_prompts_for_one_name(tmp_path):
  rows = [{'uid': 'a', 'prompt': 'red'}, {'uid': './a', 'prompt': 'blue'}]
  with pytest.raises(InputError, match=r"two prompts for '\./a'"):
    find(table(tmp_path / 't.jsonl', *rows), tmp_path, 'a.png')


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ({'uid': 'a', 'prompt': float('nan')}, 'line 1: prompt is NaN, not text'),
    ({'uid': float('nan'), 'prompt': 'a'}, 'line 1: uid is NaN, not text'),
    ({'uid': 1.0, 'prompt': 'a'}, 'line 1: uid is 1.0, not text'),
    ({'uid': 'a', 'prompt': 5}, 'line 1: prompt is 5, not text'),
    ({'uid': 'a', 'prompt': 'r\0e\0d'}, 'line 1: prompt .* NUL characters'),
    ({'uid': 'a', 'prompt': '\ud800'}, 'line 1: prompt .* surrogates not allowed'),
    ({'uid': '', 'prompt': 'a'}, 'line 1: the row does not name an image'),
    ({'prompt': 'a'}, r'line 1: needs uid \(or image, path, file_name, filename\)'),
  ],
)
def test_invalid_prompts_and_names(tmp_path, row, message):
  with pytest.raises(InputError, match=rf't\.jsonl, {message}'):
    [*read(table(tmp_path / 't.jsonl', row))]


def test_a_duplicate_column(tmp_path):
  columns = [pa.array(['a']), pa.array(['red']), pa.array(['blue'])]
  pq.write_table(
    pa.Table.from_arrays(columns, ['uid', 'prompt', 'prompt']), tmp_path / 't.parquet'
  )
  (tmp_path / 't.csv').write_text('uid,prompt,prompt\na,red,blue\n')
  for name in ('t.parquet', 't.csv'):
    with pytest.raises(InputError, match='the column prompt occurs twice'):
      [*read(tmp_path / name)]
