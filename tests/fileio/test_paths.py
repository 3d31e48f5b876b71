"""Paths and the errors of reading them."""

import pytest
import tensorflow as tf
from etils import epath

from rahf.fileio import paths


def test_errors_of_tensorflow_are_errors_of_reading(tmp_path):
  """Buckets are read by TensorFlow, whose errors are not OSErrors."""
  for read in (
    (tmp_path / 'missing').read_bytes,
    tf.io.gfile.GFile(tmp_path / 'missing').read,
  ):
    with pytest.raises(paths.read_errors()):
      read()


def test_absolute_paths(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert paths.absolute(epath.Path('run')) == epath.Path(tmp_path / 'run')
  # A work directory in a bucket must not become a local one.
  assert str(paths.absolute(epath.Path('gs://bucket/run'))) == 'gs://bucket/run'
