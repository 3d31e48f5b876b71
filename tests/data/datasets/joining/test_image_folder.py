"""Folders of images with each kind of prompt table."""

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rahf.data.datasets.joining.image_folder import ImageFolder, read_prompts
from rahf.errors import InputError

AWKWARD = 'a "red" cat,\nasleep — 猫'


def _write_table(path, uid_column='uid', prompt_column='prompt'):
  rows = [
    {uid_column: 'train/a.png' if uid_column == 'filename' else 'a'}
    | {prompt_column: AWKWARD},
    {uid_column: 'b', prompt_column: 'plain'},
  ]
  if path.suffix == '.parquet':
    pq.write_table(pa.Table.from_pylist(rows), path)
  elif path.suffix == '.jsonl':
    text = ''.join(json.dumps(row) + '\n\n' for row in rows)
    path.write_text(text, encoding='utf-8')
  else:
    comma = {'.csv': ',', '.tsv': '\t'}[path.suffix]
    quoted = AWKWARD.replace('"', '""')
    # In TSV, a quoted header means that values are quoted, too.
    lines = [f'"{uid_column}"{comma}"{prompt_column}"']
    lines += [f'{rows[0][uid_column]}{comma}"{quoted}"', f'b{comma}plain']
    # Spreadsheets write a byte order mark.
    path.write_text('\n'.join(lines), encoding='utf-8-sig')
  return path


@pytest.mark.parametrize('suffix', ['.csv', '.tsv', '.jsonl', '.parquet'])
@pytest.mark.parametrize('columns', [('uid', 'prompt'), ('filename', 'caption')])
def test_tables(tmp_path, suffix, columns):
  table = _write_table(tmp_path / f'prompts{suffix}', *columns)
  assert list(read_prompts(table)) == [('a', AWKWARD), ('b', 'plain')]


def test_uids_may_be_numbers(tmp_path):
  table = tmp_path / 't.jsonl'
  table.write_text('{"uid": 0, "prompt": "a"}\n{"uid": 1, "prompt": "b"}\n')
  assert list(read_prompts(table)) == [('0', 'a'), ('1', 'b')]


def test_images_are_found_in_subfolders_by_stem(tmp_path):
  folder = tmp_path / 'images' / 'deep'
  folder.mkdir(parents=True)
  for name in ('a.JPG', 'a.png', 'b.webp', 'b.txt', 'unwanted.png'):
    (folder / name).write_bytes(name.encode())
  table = _write_table(tmp_path / 'prompts.csv')
  found = ImageFolder(tmp_path / 'images', table, ['a', 'b', 'absent'])
  assert found.locations.keys() == {'a', 'b'}
  assert dict(found.read(['a', 'b'])) == {'a': b'a.JPG', 'b': b'b.webp'}
  assert list(found.repeated) == ['a']
  assert found.prompts == {'a': AWKWARD, 'b': 'plain'}


def test_names_with_dots_and_without_extension(tmp_path):
  for name in ('sd_v1.png', 'sd_v1.5_0.png', 'sd_v1.5_1.png'):
    (tmp_path / name).write_bytes(b'x')
  table = tmp_path / 'prompts.csv'
  table.write_text('path,prompt\nsd_v1.5_0,red\nsd_v1.5_1.png,blue\n')
  found = ImageFolder(tmp_path, table, ['sd_v1', 'sd_v1.5_0', 'sd_v1.5_1'])
  assert found.prompts == {'sd_v1.5_0': 'red', 'sd_v1.5_1': 'blue'}


def test_first_of_differing_prompts_wins(tmp_path):
  (tmp_path / 'a.png').write_bytes(b'x')
  table = tmp_path / 'prompts.csv'
  table.write_text('uid,prompt\na,first\na,first\na,second\n')
  found = ImageFolder(tmp_path, table, ['a'])
  assert found.prompts == {'a': 'first'}
  assert found.conflicts == {'a': "'first' used, not 'second'"}


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('t.csv', b'id,text\n1,x\n', r't\.csv, line 1: needs uid .* has id, text'),
    ('t.csv', b'uid,prompt\n1,\xff\xfe\n', r't\.csv cannot be read .*UTF-8'),
    ('t.jsonl', b'{"uid": "a", "prompt"', r"t\.jsonl, line 1: not JSON .*':'"),
    ('t.jsonl', b'["a"]', r't\.jsonl, line 1: not a JSON object'),
    ('t.jsonl', b'{"filename": 7, "prompt": "a"}', 'line 1: filename is 7, not text'),
    ('t.parquet', b'PAR1 but no more', r't\.parquet is not a complete parquet file'),
    ('t.xlsx', b'', r'must end in one of \.csv'),
  ],
)
def test_bad_tables_are_named(tmp_path, name, content, message):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(InputError, match=message):
    list(read_prompts(tmp_path / name))


def test_missing_table_and_folder_without_images(tmp_path):
  with pytest.raises(InputError, match=r'--prompts .*no such file'):
    list(read_prompts(tmp_path / 'absent.csv'))
  with pytest.raises(InputError, match=r'--images .*no \.png.*omit --prompts'):
    ImageFolder(tmp_path, tmp_path / 'absent.csv', ['a'])


def test_images_in_a_tar_archive(tmp_path):
  """Links and other files in it are skipped, and nothing is unpacked."""
  archive = tmp_path / 'images.tar'
  with tarfile.open(archive, 'w') as tar:
    for name in ('deep/a.png', '../b.webp', 'readme.txt'):
      data = name.encode()
      member = tarfile.TarInfo(name)
      member.size = len(data)
      tar.addfile(member, io.BytesIO(data))
    link = tarfile.TarInfo('c.png')
    link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
    tar.addfile(link)
  table = _write_table(tmp_path / 'prompts.csv')
  before = sorted(tmp_path.rglob('*'))
  found = ImageFolder(archive, table, ['a', 'b', 'c'])
  assert dict(found.read(['b', 'a'])) == {'a': b'deep/a.png', 'b': b'../b.webp'}
  assert sorted(tmp_path.rglob('*')) == before
  archive.write_bytes(archive.read_bytes()[:700])
  with pytest.raises(InputError, match='not a complete tar archive'):
    ImageFolder(archive, table, ['a'])


def table(path, *rows: str):
  path.write_text('\n'.join(['file_name,prompt', *rows]))
  return path


def test_a_path_in_the_table_means_one_folder(tmp_path):
  for name in ('m1/a.png', 'm2/b.jpg', 'c.png'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(name.encode())
  rows = ('m2/a.png,red', 'm1/a.jpg,green', 'm1/b.png,blue', 'x/c.png,white')
  found = ImageFolder(tmp_path, table(tmp_path / 't.csv', *rows), ['a', 'b', 'c', 'd'])
  # A uid is one image, whatever its format.
  assert found.prompts == {'a': 'green'}
  assert found.unprompted == {
    'a': f'the table has one for m2/a.png, not for {tmp_path}/m1/a.png',
    'b': f'the table has one for m1/b.png, not for {tmp_path}/m2/b.jpg',
    'c': f'the table has one for x/c.png, not for {tmp_path}/c.png',
  }


def test_a_path_in_the_table_means_one_folder_of_an_archive(tmp_path):
  with tarfile.open(tmp_path / 'x.tar', 'w') as tar:
    for name in ('./m1/a.png', 'm2/b.png'):
      tar.addfile(tarfile.TarInfo(name))
  rows = ('m1/a.png,red', 'm1/b.png,blue')
  found = ImageFolder(tmp_path / 'x.tar', table(tmp_path / 't.csv', *rows), ['a', 'b'])
  assert found.prompts == {'a': 'red'}
  assert [*found.unprompted] == ['b']


def test_unsupported_formats_are_used_only_as_a_last_resort(tmp_path):
  for name in ('a.gif', 'a.png', 'b.gif', 'b.tiff', 'c.jfif', '.d.png'):
    (tmp_path / name).write_bytes(name.encode())
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'linked').symlink_to(tmp_path / 'folder')
  rows = [f'{uid},red' for uid in ('a', 'b', 'c', '.d')]
  found = ImageFolder(tmp_path, table(tmp_path / 't.csv', *rows), ['a', 'b', 'c', '.d'])
  expected = {'a': b'a.png', 'b': b'b.gif', 'c': b'c.jfif'}
  assert dict(found.read(found.locations)) == expected
  assert found.repeated == {}
  assert found.linked == [tmp_path / 'linked']


def test_a_truncated_archive(tmp_path):
  with tarfile.open(tmp_path / 'x.tar', 'w') as tar:
    tar.addfile(tarfile.TarInfo('a.png'))
  path = tmp_path / 'x.tar'
  path.write_bytes(path.read_bytes()[:512])
  with pytest.raises(InputError, match=r'not a complete tar archive .*no end'):
    ImageFolder(path, table(tmp_path / 't.csv', 'a,red'), ['a'])
