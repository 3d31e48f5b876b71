"""Batches without data: their shapes, and random batches for timing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rahf import config as config_lib
from rahf.data.schema import MAPS, SCORES, Batch


def batch_shapes(
  config: ConfigDict, rows: int, sharding: jax.sharding.Sharding | None = None
) -> Batch:
  """Returns shapes and dtypes of a batch of `rows` rows; see schema.Batch."""
  size, texts = config.model.image_size, config_lib.model_config(config).texts
  length, target = config.data.text_length, config.data.target_length

  def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=sharding)

  return Batch(
    index=array(jnp.int32),
    image=array(jnp.float32, size, size, 3),
    text=array(jnp.int32, texts, length),
    word_end=array(jnp.bool_, length),
    target=array(jnp.int32, target),
    maps=array(jnp.float32, len(MAPS), size, size),
    map_mask=array(jnp.bool_, len(MAPS)),
    scores=array(jnp.float32, len(SCORES)),
    score_mask=array(jnp.bool_, len(SCORES)),
    keyword_mask=array(jnp.bool_),
    truncated=array(jnp.bool_),
  )


def random_batch(config: ConfigDict, rows: int) -> Batch:
  """Returns random rows with all labels and without padding."""
  random = np.random.default_rng(0)

  def fill(shape: jax.ShapeDtypeStruct) -> np.ndarray:
    if shape.dtype == jnp.bool_:
      return np.ones(shape.shape, bool)
    if shape.dtype == jnp.int32:
      return random.integers(2, config.model.t5.vocab_size, shape.shape, np.int32)
    return random.random(shape.shape, shape.dtype)

  return jax.tree.map(fill, batch_shapes(config, rows))
