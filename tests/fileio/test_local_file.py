"""Local copies of files in a bucket."""

import gc
import pathlib

from rahf.fileio.local_file import local_file


class BucketFile:
  """A path whose bucket is a local folder."""

  name = 'vit.npz'

  def __init__(self, folder: pathlib.Path):
    self._folder = folder

  def __fspath__(self) -> str:
    return f'gs://bucket/{self.name}'

  def copy(self, to) -> None:
    pathlib.Path(to).write_bytes((self._folder / self.name).read_bytes())


def test_a_copy_lives_as_long_as_it_is_needed(tmp_path):
  (tmp_path / 'vit.npz').write_bytes(b'values')
  file = local_file(BucketFile(tmp_path))
  copy = pathlib.Path(file.path)
  assert copy.read_bytes() == b'values'
  del file
  gc.collect()
  assert not copy.parent.exists()


def test_a_local_file_is_not_copied(tmp_path):
  assert local_file(tmp_path / 'vit.npz').path == str(tmp_path / 'vit.npz')
