"""WebDataset archives: which files form a row, and which are used."""

import gzip
import io
import json
import re
import tarfile

import numpy as np
import pytest

from rahf.data.images.files import Archive
from rahf.data.sources.source import open_source
from rahf.errors import InputError


def write(path, *names: str | tuple[str, bytes], links=()):
  """Writes files whose content is their name, or the second element of a pair."""
  mode = {'.tgz': 'w:gz', '.xz': 'w:xz', '.bz2': 'w:bz2'}.get(path.suffix, 'w')
  with tarfile.open(path, mode) as tar:
    for name in names:
      name, data = name if isinstance(name, tuple) else (name, name.encode())
      member = tarfile.TarInfo(name)
      member.size = len(data)
      tar.addfile(member, io.BytesIO(data))
    for name, kind in links:
      member = tarfile.TarInfo(name)
      member.type, member.linkname = kind, '1.png'
      tar.addfile(member)
  return path


def read(path) -> dict[str, tuple]:
  """Returns prompt, image and error of each row by its uid."""
  items = [load() for _, load in open_source(str(path)).read(lambda _: True)]
  found = {item.uid: (item.prompt, item.image, item.error) for item in items}
  assert len(found) == len(items) == open_source(str(path)).rows
  return found


@pytest.mark.parametrize('suffix', ['.tar', '.tgz', '.tar.bz2', '.tar.xz'])
def test_keys_with_dots(tmp_path, suffix):
  names = [f'x/SD_v1.5_{n:04}.{kind}' for n in range(4) for kind in ('png', 'txt')]
  found = read(write(tmp_path / f't{suffix}', *names))
  assert found == {
    f'x/SD_v1.5_{n:04}': (
      f'x/SD_v1.5_{n:04}.txt',
      f'x/SD_v1.5_{n:04}.png'.encode(),
      '',
    )
    for n in range(4)
  }


def test_a_key_and_another_that_extends_it_with_dots(tmp_path):
  names = ('a.1.PNG', 'a.1.txt', 'a.jpg', 'a.txt', 'a.v.2.png', 'a.v.2.json')
  metadata = json.dumps({'caption': 'red', 'aesthetic': float('nan')}).encode()
  path = write(tmp_path / 't.tar', *names[:-1], (names[-1], metadata))
  assert read(path) == {
    'a.1': ('a.1.txt', b'a.1.PNG', ''),
    'a': ('a.txt', b'a.jpg', ''),
    'a.v.2': ('red', b'a.v.2.png', ''),
  }


def test_other_fields_are_neither_image_nor_prompt(tmp_path):
  names = ('1.depth.exr', '1.exr', '1.negative.txt', '1.png', '1.seg.png', '1.txt')
  names += ('2.cls', '2.negative.txt', '2.png')
  assert read(write(tmp_path / 't.tar', *names)) == {
    '1': ('1.txt', b'1.png', ''),
    '2': (None, b'2.png', ''),
  }


@pytest.mark.parametrize(
  ('names', 'error'),
  [
    (('1.jpg', '1.png', '1.txt'), '2 images for this key, not one; .* in jpg, png'),
    (('1.png', '1.png', '1.txt'), 'png occurs twice for this key'),
    (('1.png', '1.PNG', '1.txt'), 'png occurs twice for this key'),
    (('1.png', '1.txt', '1.txt'), 'txt occurs twice for this key'),
    (('1.seg.png', '1.txt'), '0 images for this key, not one; .* in seg.png'),
    (('1.txt',), '0 images for this key, not one; .* in no known extension'),
    (
      tuple(f'1.{n}.png' for n in range(7)),
      r'0 images .* in 0\.png, 1\.png, 2\.png, 3\.png and 3 more',
    ),
  ],
)
def test_rows_without_exactly_one_image_list_their_files(tmp_path, names, error):
  ((uid, found),) = read(write(tmp_path / 't.tar', *names)).items()
  assert uid == '1'
  assert re.search(error, found[2])


def test_prompts_that_cannot_be_read(tmp_path):
  found = read(
    write(
      tmp_path / 't.tar',
      *('1.png', ('1.txt', 'a red circle'.encode('utf-16-le'))),
      *('2.png', ('2.json', b'{"prompt": NaN}')),
      *('3.png', ('3.json', b'{"prompt"')),
      *('4.png', ('4.txt', b'version https://git-lfs.github.com/spec/v1\n')),
      *('5.png', ('5.txt', b'\xef\xbb\xbfa red circle\n')),
      *('6.png', ('6.txt', bytes(2**20 + 1))),
    )
  )
  for uid, message in {
    '1': 'its prompt cannot be read: it has NUL characters, as in UTF-16',
    '2': 'its prompt is NaN',
    '3': 'its prompt cannot be read: not JSON',
    '4': 'it is a Git LFS pointer',
    '6': 'its txt has more than 1048576 bytes',
  }.items():
    assert message in found[uid][2]
    assert found[uid][0] is None
  assert found['5'] == ('a red circle', b'5.png', '')


def test_links_and_images_of_other_formats_are_rows(tmp_path):
  links = [('2.png', tarfile.LNKTYPE), ('3.png', tarfile.SYMTYPE)]
  names = ('1.jfif', '1.txt', '4.gif', '4.txt', '.hidden.png')
  found = read(write(tmp_path / 't.tar', *names, links=links))
  assert found['1'] == ('1.txt', b'1.jfif', '')
  # The decoder will name its format.
  assert found['4'] == ('4.txt', b'4.gif', '')
  for uid in '23':
    assert found[uid] == (None, None, 'its png is a link or a device')
  assert found.keys() == {*'1234'}


def test_a_compressed_archive_is_read_sequentially(tmp_path, monkeypatch):
  """Seeking back would decompress everything before, for each row."""
  path = tmp_path / 't.tgz'
  write(path, *((f'{n}.png', bytes([n]) * 512 * 600) for n in range(9)))
  rewinds = []
  rewind = gzip._GzipReader._rewind
  monkeypatch.setattr(
    gzip._GzipReader, '_rewind', lambda self: rewinds.append(rewind(self))
  )
  source = open_source(str(path))
  images = [load().image for _, load in source.read(lambda number: number % 2)]
  assert [image[:1] for image in images] == [bytes([n]) for n in (1, 3, 5, 7)]
  assert not rewinds


def test_a_git_lfs_pointer_is_named(tmp_path):
  path = tmp_path / 't.tar'
  path.write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n')
  with pytest.raises(InputError, match=r't\.tar is a Git LFS pointer.*git lfs pull'):
    open_source(str(path))


@pytest.mark.parametrize('suffix', ['.tar', '.tgz'])
def test_archives_joined_by_cat_are_refused(tmp_path, suffix):
  """Of these tarfile reads the first alone."""
  first = write(tmp_path / f'1{suffix}', '1.png', '1.txt').read_bytes()
  second = write(tmp_path / f'2{suffix}', '2.png', '2.txt').read_bytes()
  path = tmp_path / f't{suffix}'
  path.write_bytes(first + second)
  with pytest.raises(InputError, match='more follows its end at byte 2048; cat does'):
    open_source(str(path))
  with pytest.raises(InputError, match='more follows its end'):
    Archive(path)
  if suffix == '.tar':  # Tapes and blocks are filled up with zeros.
    path.write_bytes(first + bytes(50_000))
    assert read(path).keys() == {'1'}


@pytest.mark.parametrize('kind', ['gz', 'bz2', 'xz'])
def test_damage_in_a_compressed_archive(tmp_path, kind):
  path = tmp_path / 't.tar'
  with tarfile.open(path, f'w:{kind}') as tar:
    for number in range(8):
      member = tarfile.TarInfo(f'{number}.png')
      member.size = 300_000  # Larger than the first block of bzip2.
      data = np.random.default_rng(number).bytes(member.size)
      tar.addfile(member, io.BytesIO(data))
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)
  with pytest.raises((InputError, OSError)):
    open_source(str(path))
