"""Only one process at a time may lock a folder."""

import pytest

from rahf.errors import InputError
from rahf.fileio import locks


def test_a_folder_is_locked_until_the_end(tmp_path):
  folder = tmp_path / 'new/run'
  with locks.locked(folder):
    with (
      pytest.raises(InputError, match='another process is writing'),
      locks.locked(folder),
    ):
      raise AssertionError('held twice')
    with locks.locked(tmp_path / 'other'):
      pass
  with locks.locked(folder):
    pass


def test_buckets_have_no_locks():
  with locks.locked('gs://bucket/run'):
    pass
