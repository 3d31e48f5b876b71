"""Git LFS pointers are recognised."""

import pytest

from rahf.errors import InputError
from rahf.fileio import lfs_pointer, strict_json

# From the specification: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
POINTER = b"""\
version https://git-lfs.github.com/spec/v1
oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393
size 12345
"""


def test_pointers_and_other_files():
  assert lfs_pointer.is_pointer(POINTER)
  assert lfs_pointer.is_pointer(POINTER[: len(lfs_pointer.START)])
  for head in (b'', b'version', b'PAR1', b' ' + POINTER, b'version https://hawser'):
    assert not lfs_pointer.is_pointer(head)
    lfs_pointer.check('x', head)


def test_errors_say_what_to_do(tmp_path):
  with pytest.raises(
    InputError, match='x is a Git LFS pointer, not the data: run `git'
  ):
    lfs_pointer.check('x', POINTER)
  (tmp_path / 'x.json').write_bytes(POINTER)
  with pytest.raises(ValueError, match=r'x\.json is a Git LFS pointer'):
    strict_json.read(tmp_path / 'x.json')
