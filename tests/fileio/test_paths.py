"""Paths and the errors of reading them."""

import pytest
import tensorflow as tf

from rahf.fileio import paths


def test_errors_of_tensorflow_are_errors_of_reading(tmp_path):
  """Buckets are read by TensorFlow, whose errors are not OSErrors."""
  for read in (
    (tmp_path / 'missing').read_bytes,
    tf.io.gfile.GFile(tmp_path / 'missing').read,
  ):
    with pytest.raises(paths.read_errors()):
      read()
