r"""Baseline: misaligned words from CLIP's attention, without training (CLIP4DM).

The paper has no baseline for words. Weights and sizes as in `clip_zero_shot.py`.

  python -m rahf.main --mode=eval --workdir=… \
    --config=configs/baselines/clip_words.py:clip-vit-base-patch32

Hardware: a CPU. Not yet run with the public weights.
"""

from ml_collections import ConfigDict

from configs.baselines import clip_zero_shot


def get_config(weights: str = '') -> ConfigDict:
  config = clip_zero_shot.get_config(weights)
  config.baseline.kind = 'clip_words'
  return config
