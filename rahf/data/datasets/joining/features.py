"""The record schema as TFDS features."""

import functools

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from rahf.data import schema


def record_features() -> tfds.features.FeaturesDict:
  """Returns the features of `schema.Record`; builders yield `record._asdict()`.

  Images are plain strings, so that their bytes are stored unchanged.
  """
  encoded = tfds.features.Tensor(shape=(), dtype=np.bytes_)
  return tfds.features.FeaturesDict(
    {
      'uid': tfds.features.Text(),
      'image': encoded,
      'prompt': tfds.features.Text(),
      'tokens': tfds.features.Sequence(tfds.features.Text()),
      'keyword_labels': tfds.features.Sequence(np.int64),
      'scores': tfds.features.Tensor(shape=(len(schema.SCORES),), dtype=np.float32),
      'implausibility_map': encoded,
      'misalignment_map': encoded,
      'keyword_shares': tfds.features.Sequence(np.float32),
    }
  )


def encode_record(record: schema.Record) -> bytes:
  """Returns a record as a deterministically serialised `tf.train.Example`."""
  serialized = _features().serialize_example(record._asdict())
  # By default, protobuf orders features differently in each process.
  return tf.train.Example.FromString(serialized).SerializeToString(deterministic=True)


@functools.cache
def _features() -> tfds.features.FeaturesDict:
  return record_features()
