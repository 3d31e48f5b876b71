"""The smallest Muse with all parts, on a few generated shapes.

As a config file: python -m rahf.main --config=tests/tiny_muse.py:generator --workdir=…
"""

import os

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

import tiny
from rahf import config as config_lib
from rahf.data.clip_tokenizer import train_vocabulary
from rahf.inference import write_generator
from rahf.models import muse

PROMPTS = ('a red circle', 'a blue cross', 'two large green rings')


def get_config(
  task: str = 'autoencoder', data_dir: str | os.PathLike = 'data'
) -> ConfigDict:
  """Returns a config for one of the two tasks."""
  config = tiny.get_config(data_dir)
  config.task = task
  muse = config.muse
  muse.image_size = 64
  muse.autoencoder.update(
    widths=(8,), blocks=1, groups=2, latents=4, levels=(4, 3), patch=8
  )
  muse.transformer.update(
    width=16,
    layers=1,
    heads=2,
    mlp=32,
    embedding=8,
    channels=8,
    conv_layers=1,
    conv_heads=2,
    downsample=True,
    positions=True,
    vocab_size=13,
    codebook_size=12,
    text_width=8,
    pooled_width=8,
    frequencies=2,
  )
  muse.text.update(text_length=24, vocab_size=520, projection=8)
  muse.text.text.update(width=8, layers=2, heads=2, mlp=16)
  config.sampling.update(steps=3, guidance=3.0)
  config.data.augment = False
  if task == 'generator':
    config.optimizer.freeze = ('^autoencoder/',)
  return config


def random_params(config: ConfigDict):
  """Returns parameters that all matter, as nested NumPy arrays."""
  random = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: random.normal(0, 0.5, leaf.shape).astype(np.float32),
    muse.abstract_params(config_lib.muse_config(config)),
  )


def write(folder: os.PathLike) -> None:
  """Writes a model directory with random parameters."""
  config = get_config('generator')
  vocabulary = train_vocabulary(PROMPTS, config.muse.text.vocab_size)
  params = random_params(config)
  write_generator.write(epath.Path(folder), config, 1, params, vocabulary, '# Muse\n')
