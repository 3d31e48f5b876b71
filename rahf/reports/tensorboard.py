"""Writes scalars, pictures and tables for TensorBoard."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from jaxtyping import UInt8


class TensorBoardWriter:
  """Writes event files below one directory; a context manager.

  Scalars of each split go to a run of the split's name, so that TensorBoard draws
  the curves of `train` and `dev` into one chart; pictures and texts go to `review`.
  """

  def __init__(self, directory: str | os.PathLike):
    """Opens nothing yet; a run's event file starts with its first entry.

    Raises:
      ImportError: TensorFlow is not installed.
    """
    # Scoring and training without review need neither.
    try:
      import matplotlib  # noqa: F401, what is written here is drawn with it
      import tensorflow as tf
    except ImportError as error:
      raise ImportError(
        "TensorBoard files need TensorFlow and matplotlib: pip install 'rahf[train]'"
      ) from error
    # Otherwise TensorFlow takes all memory of a GPU that JAX is using.
    tf.config.set_visible_devices([], 'GPU')
    self._tf = tf
    self._directory = epath.Path(directory)
    self._runs = {}

  def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
    """Writes metrics by name, such as `overall/srcc`, as points of their charts."""
    with self._run(split).as_default(step=step):
      for name, value in values.items():
        self._tf.summary.scalar(name, value)

  def pictures(
    self, step: int, name: str, images: Sequence[UInt8[np.ndarray, '_ _ 3']]
  ) -> None:
    """Writes pictures, RGB and each of its own size, as `name/0`, `name/1`, …"""
    with self._run('review').as_default(step=step):
      for i, image in enumerate(images):
        self._tf.summary.image(f'{name}/{i}', image[None])

  def text(self, step: int, name: str, markdown: str) -> None:
    """Writes a text that TensorBoard renders from Markdown, such as a table."""
    with self._run('review').as_default(step=step):
      self._tf.summary.text(name, markdown)

  def close(self) -> None:
    """Writes out what is buffered and closes the files; needed once."""
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
