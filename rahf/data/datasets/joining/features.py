"""The record schema as TFDS features, shared by all builders."""

import functools

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from rahf.data import schema


def record_features() -> tfds.features.FeaturesDict:
  """Returns the features of `schema.Record`; builders yield `record._asdict()`.

  Image bytes are plain strings, so that they are stored exactly as found.
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
  """Returns a record as a serialised `tf.train.Example`; equal ones as equal bytes."""
  serialized = _features().serialize_example(record._asdict())
  # Otherwise protobuf's order of features differs from one process to the next.
  return tf.train.Example.FromString(serialized).SerializeToString(deterministic=True)


@functools.cache
def _features() -> tfds.features.FeaturesDict:
  return record_features()
