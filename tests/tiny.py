"""The smallest RAHF with all components, on a few generated shapes.

As a config file: python -m rahf.main --config=tests/tiny.py --workdir=…
"""

import os

from ml_collections import ConfigDict

from rahf.config import default_config


def get_config(data_dir: str | os.PathLike = 'data') -> ConfigDict:
  """Returns a config with dropout, shuffling, augmentation and clipping enabled."""
  config = default_config()
  model = config.model
  model.variant = 'multi_head'
  model.image_size = 64
  model.dtype = 'float32'
  model.vit.update(patch=16, width=16, layers=1, heads=2, mlp=32)
  model.t5.update(
    vocab_size=288,
    width=16,
    heads=2,
    head_dim=8,
    mlp=32,
    encoder_layers=1,
    decoder_layers=1,
  )
  model.heatmap_head.update(convs=(8,), deconvs=(8,), readout=8)
  model.score_head.update(convs=(8, 8), dense=(8,))
  config.data.update(
    name='shapes', dir=os.fspath(data_dir), text_length=32, target_length=40
  )
  # Enough examples for SIGTERM to arrive during an evaluation.
  config.data.shapes.update(train=12, dev=61, test=3)
  config.optimizer.update(warmup_steps=2)
  config.train.update(steps=4, batch_size=8, log_every=1, checkpoint_every=2)
  config.eval.update(every=2, batch_size=8)
  config.review.update(examples=2, worst=1, page=5)
  return config
