"""The smallest model with all components, and batches for it.

All sizes are multiples of 8, so that eight devices can share any axis.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rahf.data.schema import Batch
from rahf.models.heads import HeatmapHeadConfig, ScoreHeadConfig
from rahf.models.rahf import RAHF, RAHFConfig
from rahf.models.t5 import T5Config
from rahf.models.vit import ViTConfig

TINY = RAHFConfig(
  variant='multi_head',
  image_size=32,
  vit=ViTConfig(patch=8, width=16, layers=1, heads=8, mlp=16),
  t5=T5Config(
    vocab_size=40,
    width=16,
    heads=8,
    head_dim=2,
    mlp=24,
    encoder_layers=1,
    decoder_layers=1,
  ),
  heatmap_head=HeatmapHeadConfig(convs=(8, 8), deconvs=(8,), readout=8),
  score_head=ScoreHeadConfig(convs=(8, 8), dense=(8,)),
  dropout_rate=0.0,
  dtype='float32',
)
VARIANTS = ('multi_head', 'augmented_prompt')


def tiny(variant: str = 'multi_head', **changes) -> RAHFConfig:
  return dataclasses.replace(TINY, variant=variant, **changes)


def make_batch(
  config: RAHFConfig, rows: int = 8, text_length: int = 16, target_length: int = 8
) -> Batch:
  """Returns random rows with texts of any length and every kind of missing label.

  The last row is padding.
  """
  rng = np.random.default_rng(0)
  size = config.image_size

  def tokens(*shape: int) -> np.ndarray:
    ids = rng.integers(2, config.t5.vocab_size, shape)
    last = rng.integers(0, shape[-1], (*shape[:-1], 1))
    position = np.arange(shape[-1])
    ids = np.where(position < last, ids, np.where(position == last, 1, 0))
    return ids.astype(np.int32)

  real = np.arange(rows) < rows - 1
  return Batch(
    index=np.where(real, np.arange(rows), -1).astype(np.int32),
    image=rng.uniform(-1, 1, (rows, size, size, 3)).astype(np.float32),
    text=tokens(rows, config.texts, text_length),
    word_end=rng.random((rows, text_length)) < 0.5,
    target=tokens(rows, target_length),
    maps=rng.uniform(0, 1, (rows, 2, size, size)).astype(np.float32),
    map_mask=(rng.random((rows, 2)) < 0.6) & real[:, None],
    scores=rng.uniform(0, 1, (rows, 4)).astype(np.float32),
    score_mask=(rng.random((rows, 4)) < 0.6) & real[:, None],
    keyword_mask=(rng.random(rows) < 0.7) & real,
    truncated=np.zeros(rows, bool),
  )


def make_params(model: RAHF) -> dict:
  """Returns random parameters, including biases and scales, without compiling."""
  config, rng = model.config, np.random.default_rng(1)
  boxed = jax.eval_shape(
    functools.partial(model.init, train=False),
    jax.random.key(0),
    jnp.zeros((1, config.image_size, config.image_size, 3)),
    jnp.ones((1, config.texts, 1), jnp.int32),
    jnp.ones((1, 1), jnp.int32),
  )

  def fill(path, shape) -> np.ndarray:
    name = path[-1].key
    noise = rng.standard_normal(shape.shape)
    if name == 'scale':
      return (1 + 0.1 * noise).astype(shape.dtype)
    fan_in = np.prod(shape.shape[:-1]) if name == 'kernel' else 4
    return (noise / np.sqrt(fan_in)).astype(shape.dtype)

  return jax.tree_util.tree_map_with_path(fill, nn.unbox(boxed)['params'])
