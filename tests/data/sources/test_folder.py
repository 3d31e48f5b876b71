"""Folders of images: every image is a row, in any format."""

import pytest

from rahf.data.sources.source import open_source
from rahf.errors import InputError


def write(folder, *names: str):
  for name in names:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(name.encode())
  return folder


def read(folder, prompts='') -> dict[str, tuple]:
  """Returns prompt and error of each row by its uid."""
  source = open_source(str(folder), str(prompts))
  items = [load() for _, load in source.read(lambda _: True)]
  return {item.uid: (item.prompt, item.error) for item in items}


def test_all_jpeg_extensions_and_other_formats(tmp_path):
  names = (
    *('a.jfif', 'b.JPE', 'c.gif', 'd.avif', 'e.heic', 'f.tiff', 'g.bmp', 'h.jxl'),
    *('i.pjp', 'j.pjpeg', 'k.jif', 'l.hif', 'm.avifs', 'n.dib', 'o.jpf'),
  )
  texts = [f'{name[0]}.txt' for name in names]
  folder = write(tmp_path / 'images', *names, *texts, 'notes.pdf', '.hidden.png')
  # The decoder will refuse unsupported formats.
  assert read(folder) == {name: (f'{name[0]}.txt', '') for name in names}


def test_a_folder_of_other_formats_only(tmp_path):
  assert read(write(tmp_path, 'a.gif', 'a.txt')) == {'a.gif': ('a.txt', '')}


def test_linked_folders_are_reported(tmp_path):
  write(tmp_path / 'other', 'x.png', 'x.jsonl')
  folder = write(tmp_path / 'images', 'a.png', 'a.txt', 'm/b.png', 'm/b.txt')
  for place in (folder / 'm/away', folder / '.hidden'):
    place.symlink_to(tmp_path / 'other')
  (folder / 'link.png').symlink_to(tmp_path / 'other/x.png')
  source = open_source(str(folder))
  assert source.rows == 3
  assert source.linked == [folder / 'm/away']
  tables = write(tmp_path / 'tables')
  tables.mkdir()
  (tables / 'away').symlink_to(tmp_path / 'other')
  with pytest.raises(
    InputError, match=r'no known files .*symlinked folders .*: .*tables/away'
  ):
    open_source(str(tables))


def test_images_alone_need_no_prompts(tmp_path):
  folder = write(tmp_path / 'images', 'a.png', 'm/b.png', 'm/b.txt')
  source = open_source(str(folder), images_only=True)
  items = [load() for _, load in source.read(lambda _: True)]
  assert [(i.uid, i.prompt, i.error) for i in items] == [
    ('a.png', None, ''),
    ('m/b.png', None, ''),
  ]
  with pytest.raises(InputError, match=r'^--images .*nothing: no such file'):
    open_source(str(tmp_path / 'nothing'), images_only=True, flag='--images')


def test_prompts_that_are_not_utf_8(tmp_path):
  folder = write(tmp_path, 'a.png', 'b.png', 'c.png', 'd.png', 'e.png')
  for name, encoding in (('a', 'utf-16-le'), ('b', 'utf-16'), ('c', 'latin-1')):
    (folder / f'{name}.txt').write_text('a gräy circle', encoding)
  (folder / 'd.txt').write_text('version https://git-lfs.github.com/spec/v1\nsize 1\n')
  (folder / 'e.txt').write_text('a gräy circle\n', 'utf-8-sig')
  found = read(folder)
  for name, message in (
    ('a', 'NUL characters, as in UTF-16; save it as UTF-8'),
    ('b', 'it is UTF-16; save it as UTF-8'),
    ('c', "byte 0xe4 after 'a gr' is not UTF-8"),
    ('d', 'Git LFS pointer: run `git lfs pull`'),
  ):
    prompt, error = found[f'{name}.png']
    assert prompt is None
    assert error.startswith('its prompt cannot be read: ')
    assert message in error
  assert found['e.png'] == ('a gräy circle', '')


def test_a_table_names_images_of_one_folder(tmp_path):
  folder = write(tmp_path / 'images', 'm1/a.png', 'm2/a.png', 'b.png')
  table = tmp_path / 'p.csv'
  table.write_text('filename,prompt\nm1/a.png,a red circle\n')
  assert read(folder, table) == {
    'b.png': (None, 'no prompt in p.csv'),
    'm1/a.png': ('a red circle', ''),
    'm2/a.png': (None, 'no prompt in p.csv'),
  }
  table.write_text('uid,prompt\na,a red circle\na.png,a blue square\nb,green\n')
  ambiguous = 'the table has several prompts for it: a.png, a'
  assert read(folder, table) == {
    'b.png': ('green', ''),
    **dict.fromkeys(
      ('m1/a.png', 'm2/a.png'), (None, f'its prompt cannot be read: {ambiguous}')
    ),
  }
  table.write_text('path,prompt\nx/a.png,a red circle\n')
  with pytest.raises(
    InputError,
    match=r"starts with 'x/a\.png'; .* first image is 'b\.png'\. Paths in the",
  ):
    open_source(str(folder), str(table))
