"""Imports TensorFlow without its startup messages."""

import os


def import_tensorflow() -> None:
  """Imports TensorFlow without its CPU and GPU notices; exceptions still surface.

  They are printed before TF_CPP_MIN_LOG_LEVEL takes effect, so stderr is redirected
  during the import.

  Raises:
    ModuleNotFoundError: TensorFlow is not installed.
  """
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  stderr = os.dup(2)
  try:
    with open(os.devnull, 'w') as nothing:
      os.dup2(nothing.fileno(), 2)
    import tensorflow  # noqa: F401
  finally:
    os.dup2(stderr, 2)
    os.close(stderr)
