r"""PickScore: a CLIP learns from Pick-a-Pic which of two images people prefer.

The recipe of Kirstain et al., 2023: CLIP ViT-H/14, 4,000 steps of 128 pairs.

  python -m rahf.main --workdir=… \
    --config=configs/pickscore.py:CLIP-ViT-H-14-laion2B-s32B-b79K \
    --config.pairs.dir=pickapic

`CLIP-…` is the Hugging Face directory of the weights to start from, which may be any
CLIP. `pickapic` is a folder with the parquet files of Pick-a-Pic v1, images included.
`--mode=export` writes a Hugging Face directory, as PickScore is published. To evaluate
the published one, without training:

  python -m rahf.evaluate preferences PickScore_v1 --pairs=pickapic

Hardware: the authors used 8 GPUs, 16 pairs each; --mode=precompile says what a slice of
TPUs needs. Not yet run with the public weights and data. Published accuracy on
test_unique: 70.5 % (ties counted half).
"""

import dataclasses

from ml_collections import ConfigDict

from rahf.config import default_config
from rahf.models.clip import SIZES
from rahf.pretrained.formats import clip_settings


def get_config(weights: str = '') -> ConfigDict:
  """Returns the config; `weights` are those of the CLIP to start from."""
  config = default_config()
  config.task = 'preference'
  config.init.clip = weights
  sizes = clip_settings(weights) if weights else dataclasses.asdict(SIZES['H/14'])
  config.clip.update(sizes)
  config.clip.dtype = 'bfloat16'
  config.optimizer.update(
    learning_rate=3e-6,
    schedule='linear',
    warmup_steps=500,
    weight_decay=0.3,
    decay='all',
    clip_norm=1.0,
  )
  config.train.update(
    steps=4000,
    batch_size=128,
    log_every=20,
    checkpoint_every=500,
    keep_best='accuracy/ties_dropped',
  )
  config.eval.update(every=100, batch_size=64)
  return config
