"""Reads TFRecords of `tf.train.Example`: prepared data sets and others.

Features, all bytes: image (or image/encoded), prompt (or caption), uid (or id).
"""

import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rahf.data import quiet_tensorflow
from rahf.data.images.files import version
from rahf.data.sources.item import Item, Load, Wanted
from rahf.errors import InputError
from rahf.fileio import text_files
from rahf.fileio.table_files import PROMPTS, UIDS

IMAGES = ('image', 'image/encoded')


class Shard:
  """One TFRecord file."""

  def __init__(self, path: pathlib.Path):
    """Reads the header of every record.

    Raises:
      InputError: TensorFlow is not installed, or the file is damaged.
    """
    try:
      quiet_tensorflow.import_tensorflow()
    except ModuleNotFoundError:
      raise InputError(
        'TFRecords need TensorFlow, which is not installed: pip install "rahf[train]"'
      ) from None
    import tensorflow as tf

    from rahf.data.storage import records

    tf.config.set_visible_devices([], 'GPU')  # TensorFlow would reserve its memory.
    self._path = path
    self._records = records.open_files([path])

  def scan(self) -> tuple[int, str]:
    """See `item.Reader`."""
    return len(self._records), version(self._path)

  def read(self, wanted: Wanted) -> Iterator[tuple[int, Load]]:
    """See `item.Reader`."""
    for number in range(len(self._records)):
      if wanted(number):
        yield number, functools.partial(self._load, number)

  def _load(self, number: int) -> Item:
    try:
      features = self._records.features(number)
    except InputError as error:
      return Item('', None, None, str(error))

    (uid, *_), prompts, images = (
      _values(features, names) or [b''] for names in (UIDS, PROMPTS, IMAGES)
    )
    uid = uid.decode(errors='replace')
    for what, values in (('prompts', prompts), ('images', images)):
      if len(values) > 1:
        return Item(uid, None, None, f'{len(values)} {what} in this record, not one')
    try:
      prompt = text_files.decode(prompts[0])
    except ValueError as error:
      return Item(uid, None, None, f'its prompt cannot be read: {error}')
    if not images[0]:
      return Item(uid, prompt, None, f'no bytes feature {" or ".join(IMAGES)}')
    return Item(uid, prompt, images[0])


def _values(features: Mapping[str, Any], names: Sequence[str]) -> Sequence[bytes]:
  """Returns the values of the first of these features that has any."""
  found = (features[name].bytes_list.value for name in names if name in features)
  return next(filter(None, found), ())
