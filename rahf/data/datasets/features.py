"""The record schema as TFDS features, shared by every builder."""

import numpy as np
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
