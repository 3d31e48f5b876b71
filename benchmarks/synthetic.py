"""Batches that need no data."""

import numpy as np
from ml_collections import ConfigDict

from rahf import config as config_lib
from rahf.data.schema import MAPS, SCORES, Batch


def random_batch(config: ConfigDict) -> Batch:
  """Returns a batch of full-length texts in which every label exists."""
  random = np.random.default_rng(0)
  size, pixels = config.train.batch_size, config.model.image_size
  texts = config_lib.model_config(config).texts

  def ids(*shape: int) -> np.ndarray:
    return random.integers(2, config.model.t5.vocab_size, shape, np.int32)

  return Batch(
    index=np.arange(size, dtype=np.int32),
    image=random.uniform(-1, 1, (size, pixels, pixels, 3)).astype(np.float32),
    text=ids(size, texts, config.data.text_length),
    word_end=np.ones((size, config.data.text_length), bool),
    target=ids(size, config.data.target_length),
    maps=random.random((size, len(MAPS), pixels, pixels), np.float32),
    map_mask=np.ones((size, len(MAPS)), bool),
    scores=random.random((size, len(SCORES)), np.float32),
    score_mask=np.ones((size, len(SCORES)), bool),
    keyword_mask=np.ones(size, bool),
    truncated=np.zeros(size, bool),
  )
