"""The smallest PickScore, on a few generated pairs.

As a config file: python -m rahf.main --config=tests/tiny_pickscore.py --workdir=…
"""

import os

from ml_collections import ConfigDict

from rahf.config import default_config

# Tokens of a prompt, and of the vocabulary.
TEXT, SIZE = 40, 530


def get_config(data_dir: str | os.PathLike = 'data') -> ConfigDict:
  """Returns a config with its own vocabulary, two lanes, clipping and decay."""
  config = default_config()
  config.task = 'preference'
  tower = dict(width=16, layers=1, heads=2, mlp=32, gelu='exact')
  config.clip.update(image_size=64, patch=16, vision=tower, text=tower, projection=8)
  config.clip.update(text_length=TEXT, vocab_size=SIZE)
  config.data.dir = os.fspath(data_dir)
  # Two row groups of 32 pairs at most.
  config.pairs.lanes = 2
  config.pairs.shapes.update(train=40, validation_unique=13, test_unique=11)
  config.optimizer.update(
    schedule='linear', warmup_steps=2, weight_decay=0.3, decay='all'
  )
  config.train.update(steps=4, batch_size=8, log_every=1, checkpoint_every=2)
  config.eval.update(every=2, batch_size=8)
  return config
