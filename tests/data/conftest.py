"""Fixtures: a small synthetic RichHF-18K release with Pick-a-Pic files."""

import collections
import io
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from PIL import Image

PROMPT = 'a yellow cat, asleep'


def encode(image: Image.Image, **options) -> bytes:
  """Returns the image's file as bytes; `options` are those of PIL's save."""
  buffer = io.BytesIO()
  image.save(buffer, **{'format': 'PNG', **options})
  return buffer.getvalue()


PICTURE = encode(Image.new('RGB', (16, 8), 'teal'))
MAP = encode(Image.new('L', (8, 8), 128))


class Release:
  """Label files and parquet files; fill with `add`, then `write`."""

  def __init__(self, folder: pathlib.Path):
    self.labels = folder / 'labels'
    self.images = folder / 'pickapic'
    self._examples = collections.defaultdict(list)
    self._rows = []

  def add(
    self, split: str, uid: str, image: bytes | None = PICTURE, prompt=PROMPT, **changes
  ) -> 'Release':
    """Adds a labelled image; None means that no parquet row has it.

    `changes` replace label features; None leaves a feature out.
    """
    scores = dict.fromkeys(
      ('artifact_score', 'misalignment_score', 'aesthetics_score', 'overall_score'), 0.5
    )
    values = {
      'filename': f'{split}/{uid}.png'.encode(),
      'artifact_map': MAP,
      'misalignment_map': MAP,
      'prompt_misalignment_label': b'1 0 1 1',
      **scores,
      **changes,
    }
    self._examples[split].append(
      {name: value for name, value in values.items() if value is not None}
    )
    if image is not None:
      self.add_pair((uid, 'other'), (image, b''), prompt)
    return self

  def add_pair(self, uids, images, prompt=PROMPT) -> 'Release':
    """Adds one parquet row."""
    self._rows.append(
      {
        'image_0_uid': uids[0],
        'image_1_uid': uids[1],
        'caption': prompt,
        'jpg_0': images[0],
        'jpg_1': images[1],
        'model_0': 'unused',
      }
    )
    return self

  def write(self, row_group_size: int = 4) -> 'Release':
    for folder in (self.labels, self.images):
      folder.mkdir(parents=True, exist_ok=True)
    for split in ('train', 'dev', 'test'):
      with tf.io.TFRecordWriter(str(self.labels / f'{split}.tfrecord')) as writer:
        for values in self._examples[split]:
          writer.write(_example(values))
    if self._rows:
      pq.write_table(
        pa.Table.from_pylist(self._rows),
        self.images / 'part.parquet',
        row_group_size=row_group_size,
      )
    return self


def _example(values: dict[str, bytes | float]) -> bytes:
  features = {
    name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    if isinstance(value, bytes)
    else tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
    for name, value in values.items()
  }
  return tf.train.Example(
    features=tf.train.Features(feature=features)
  ).SerializeToString()


@pytest.fixture
def release(tmp_path) -> Release:
  """An empty release below tmp_path."""
  return Release(tmp_path / 'release')


@pytest.fixture(scope='session')
def picture() -> bytes:
  """A PNG of 16 x 8 pixels."""
  return PICTURE
