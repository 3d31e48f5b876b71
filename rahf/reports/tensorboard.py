"""Writes TensorBoard event files: scalars, pictures and text."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from jaxtyping import UInt8


class TensorBoardWriter:
  """Writes event files below one directory; a context manager.

  Scalars go to a run named after the split, so that TensorBoard draws `train` and `dev`
  in one chart; pictures and text go to the run `review`.
  """

  def __init__(self, directory: str | os.PathLike):
    """Creates no files yet; a run's event file is created with its first entry.

    Raises:
      ImportError: TensorFlow is not installed.
    """
    # Imported here, since scoring needs neither.
    try:
      import matplotlib  # noqa: F401, draws the pictures written here
      import tensorflow as tf
    except ImportError as error:
      raise ImportError(
        "TensorBoard files need TensorFlow and matplotlib: pip install 'rahf[train]'"
      ) from error
    # Otherwise TensorFlow takes all memory of the GPU that JAX is using.
    tf.config.set_visible_devices([], 'GPU')
    self._tf = tf
    self._directory = epath.Path(directory)
    self._runs = {}

  def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
    """Writes metrics by name, such as `overall/srcc`."""
    with self._run(split).as_default(step=step):
      for name, value in values.items():
        self._tf.summary.scalar(name, value)

  def pictures(
    self, step: int, name: str, images: Sequence[UInt8[np.ndarray, '_ _ 3']]
  ) -> None:
    """Writes RGB pictures of any size as `name/0`, `name/1`, …"""
    with self._run('review').as_default(step=step):
      for i, image in enumerate(images):
        self._tf.summary.image(f'{name}/{i}', image[None])

  def text(self, step: int, name: str, markdown: str) -> None:
    """Writes Markdown text, such as a table."""
    with self._run('review').as_default(step=step):
      self._tf.summary.text(name, markdown)

  def close(self) -> None:
    """Flushes and closes the files."""
    for run in self._runs.values():
      run.close()
    self._runs.clear()

  def __enter__(self) -> 'TensorBoardWriter':
    return self

  def __exit__(self, *exception) -> None:
    self.close()

  def _run(self, name: str):
    if name not in self._runs:
      path = os.fspath(self._directory / name)
      self._runs[name] = self._tf.summary.create_file_writer(path)
    return self._runs[name]
