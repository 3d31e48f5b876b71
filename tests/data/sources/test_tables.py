"""Tables with an image and a prompt in each row."""

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rahf.data.sources.source import open_source
from rahf.errors import InputError


def read(path) -> list[tuple]:
  """Returns uid, prompt and error of each row."""
  items = [load() for _, load in open_source(str(path)).read(lambda _: True)]
  return [(item.uid, item.prompt, item.error) for item in items]


def test_nan_is_an_error_only_where_it_is_used(tmp_path):
  path = tmp_path / 't.jsonl'
  path.write_text(
    '{"image": "a.png", "prompt": "red", "seed": NaN}\n'
    '{"image": "a.png", "prompt": NaN}\n'
    '{"image": NaN, "prompt": "red"}\n'
    '{"image": "a.png", "prompt": "red", "uid": NaN}\n'
    '{"image": "a.png", "prompt": "red", "uid": 7}\n'
  )
  assert read(path) == [
    ('a.png', 'red', ''),
    ('a.png', None, 'its prompt is NaN'),
    ('', 'red', 'its image is NaN'),
    ('a.png', None, 'its uid is NaN'),
    ('7', 'red', ''),
  ]


def test_lines_that_are_not_json_are_explained(tmp_path):
  path = tmp_path / 't.jsonl'
  path.write_text('{"image": "a.png", "prompt": "red"}\n{"image": "b.png"\n')
  assert (
    read(path)[1][2] == "line 2: not JSON (Expecting ',' delimiter at character 19)"
  )
  path.write_text('\n{"image": }')
  with pytest.raises(InputError, match=r't\.jsonl, line 2: not JSON \(Expecting value'):
    read(path)


def test_byte_order_mark_separators_and_nuls_in_lines(tmp_path):
  path = tmp_path / 't.jsonl'
  path.write_text(
    '\ufeff{"image": "a.png", "prompt": "red\u2028blue\x85"}\n'
    '{"image": "a.png", "prompt": "r\\u0000e\\u0000d\\u0000"}\n'
  )
  first, second = read(path)
  assert first == ('a.png', 'red\u2028blue\x85', '')
  assert second[2].startswith('its prompt cannot be read: it has NUL characters')
  path.write_text('{"image": "a.png", "prompt": "red"}\n', 'utf-16-le')
  with pytest.raises(InputError, match='line 1: it has NUL characters, as in UTF-16'):
    read(path)


def test_texts_stored_as_bytes(tmp_path):
  rows = [
    {'image': b'\x89PNG', 'prompt': 'grün'.encode(), 'uid': b'abc'},
    {'image': b'\x89PNG', 'prompt': b'gr\xfcn', 'uid': b'abd'},
  ]
  pq.write_table(pa.Table.from_pylist(rows), tmp_path / 't.parquet')
  first, second = read(tmp_path / 't.parquet')
  assert first == ('abc', 'grün', '')
  assert second[:2] == ('abd', None)
  assert "byte 0xfc after 'gr' is not UTF-8" in second[2]


def test_missing_numbers(tmp_path):
  table = pa.table({'image': ['a.png'], 'prompt': ['red'], 'id': [math.nan]})
  pq.write_table(table, tmp_path / 't.parquet')
  assert read(tmp_path / 't.parquet') == [('a.png', None, 'its id is NaN')]


@pytest.mark.parametrize('name', ['t.parquet', 't.csv'])
def test_a_duplicate_column(tmp_path, name):
  path, texts = tmp_path / name, ['a.png', 'red', 'x', 'y']

  def write(*names: str) -> None:
    if name.endswith('.csv'):
      path.write_text(f'{",".join(names)}\n{",".join(texts)}\n')
    else:
      columns = [pa.array([text]) for text in texts]
      pq.write_table(pa.Table.from_arrays(columns, list(names)), path)

  write('image', 'prompt', 'prompt', 'x')
  with pytest.raises(InputError, match=rf'{name}: the column prompt occurs twice'):
    read(path)
  # Unused columns may be duplicated.
  write('image', 'prompt', 'x', 'x')
  assert read(path) == [('a.png', 'red', '')]


def test_rows_of_wrong_length(tmp_path):
  path = tmp_path / 't.csv'
  path.write_text('image,prompt\na.png,red, and blue\n')
  with pytest.raises(InputError, match=r't\.csv, line 2: 3 values, .*needs quotes'):
    read(path)
  path.write_text('image,prompt\na.png\n')
  with pytest.raises(InputError, match=r't\.csv, line 2: 1 value'):
    read(path)


def test_a_parquet_file_that_is_a_git_lfs_pointer(tmp_path):
  path = tmp_path / 't.parquet'
  path.write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n')
  with pytest.raises(InputError, match=r't\.parquet is a Git LFS pointer'):
    read(path)


def test_a_further_column(tmp_path):
  def extras(path):
    rows = open_source(str(path), extra='original').read(lambda _: True)
    return [(item.extra, item.error) for item in (load() for _, load in rows)]

  rows = [
    {'image': 'a.png', 'prompt': 'red', 'original': 'blue'},
    {'image': 'b.png', 'prompt': 'red', 'original': None},
  ]
  pq.write_table(pa.Table.from_pylist(rows), tmp_path / 'a.parquet')
  assert extras(tmp_path / 'a.parquet') == [('blue', ''), (None, '')]
  pq.write_table(
    pa.table({'image': ['a.png'], 'prompt': ['x']}), tmp_path / 'b.parquet'
  )
  assert extras(tmp_path / 'b.parquet') == [(None, '')]
  (tmp_path / 'c.tsv').write_text('image\tprompt\toriginal\na.png\tred\tblue\n')
  assert extras(tmp_path / 'c.tsv') == [('blue', '')]
  (tmp_path / 'd.jsonl').write_text(
    '{"image": "a.png", "prompt": "red"}\n'
    '{"image": "a.png", "prompt": "red", "original": NaN}\n'
  )
  assert extras(tmp_path / 'd.jsonl') == [(None, ''), (None, 'its original is NaN')]
  (tmp_path / 'e.csv').write_text('image,original,prompt,original\na.png,b,c,d\n')
  with pytest.raises(InputError, match='the column original occurs twice'):
    extras(tmp_path / 'e.csv')
