"""Batches without data: their shapes, and random batches for timing."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rahf import config as config_lib
from rahf.data.schema import MAPS, SCORES, Batch, PairBatch


def batch_shapes(
  config: ConfigDict, rows: int, sharding: jax.sharding.Sharding | None = None
) -> Batch:
  """Returns shapes and dtypes of a batch of `rows` rows; see schema.Batch."""
  size, texts = config.model.image_size, config_lib.model_config(config).texts
  length, target = config.data.text_length, config.data.target_length
  array = of_rows(rows, sharding)
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


def pair_shapes(
  rows: int,
  size: int,
  text: Sequence[int],
  sharding: jax.sharding.Sharding | None = None,
) -> PairBatch:
  """Returns shapes and dtypes of a batch of pairs; see schema.PairBatch.

  Args:
    size: side of the images.
    text: shape of one prompt.
  """
  array = of_rows(rows, sharding)
  return PairBatch(
    index=array(jnp.int32),
    images=array(jnp.uint8, 2, size, size, 3),
    text=array(jnp.int32, *text),
    preference=array(jnp.float32),
    weight=array(jnp.float32),
    problem=array(jnp.int32),
  )


def of_rows(
  rows: int, sharding: jax.sharding.Sharding | None = None
) -> Callable[..., jax.ShapeDtypeStruct]:
  """Returns a function from the dtype and shape of a row to those of a batch."""

  def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=sharding)

  return array


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
