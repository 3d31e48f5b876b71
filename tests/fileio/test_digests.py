"""Digests of files, and errors for changed files."""

import hashlib

import pytest
from etils import epath

from rahf.errors import InputError
from rahf.fileio import digests
from rahf.fileio.digests import Digest

# FIPS 180-2, appendix B.1, and the well-known digest of an empty file.
ABC = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
NOTHING = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'


@pytest.fixture
def folder(tmp_path) -> epath.Path:
  (tmp_path / 'b/c').mkdir(parents=True)
  (tmp_path / 'a').write_bytes(b'abc')
  (tmp_path / 'b/c/d').write_bytes(b'')
  return epath.Path(tmp_path)


def test_every_file_below_a_folder(folder):
  assert digests.describe(folder) == {'a': Digest(3, ABC), 'b/c/d': Digest(0, NOTHING)}


def test_a_large_file_is_read_completely(tmp_path):
  content = bytes(range(256)) * 2**14
  (tmp_path / 'x').write_bytes(content)
  expected = Digest(len(content), hashlib.sha256(content).hexdigest())
  assert digests.digest(tmp_path / 'x') == expected


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (
      b'abd',
      f'a is damaged: its SHA-256 is [0-9a-f]+, but was {ABC} .*copy the file again',
    ),
    (b'abcd', 'a is damaged: it has 4 bytes, but had 3'),
    (b'', 'a is damaged: it has 0 bytes, but had 3'),
    (
      b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n',
      'a is a Git LFS pointer, not the data: run `git lfs pull`',
    ),
  ],
)
def test_a_changed_file(folder, content, message):
  expected = digests.describe(folder)
  digests.check(folder / 'a', 'a', expected)
  (folder / 'a').write_bytes(content)
  with pytest.raises(InputError, match=message):
    digests.check(folder / 'a', 'a', expected)


def test_an_unexpected_file(folder):
  expected = digests.describe(folder)
  with pytest.raises(InputError, match='a is not part of the exported model'):
    digests.check(folder / 'a', 'x', expected)
  digests.check(folder / 'a', 'x', {})  # Nothing is checked.
