r"""Baseline: the gradient of CLIP's cosine as the misalignment map (paper, table 3).

Weights and sizes as in `clip_zero_shot.py`; nothing is trained. Other kinds of maps are
in `rahf/models/clip_maps.py`; `config.baseline.gradient` chooses one.

  python -m rahf.main --mode=eval --workdir=… \
    --config=configs/baselines/clip_gradient.py:clip-vit-base-patch32

Hardware: a CPU. Not yet run with the public weights. The paper reports on RichHF-18K
test: misalignment CC .015.
"""

from ml_collections import ConfigDict

from configs.baselines import clip_zero_shot


def get_config(weights: str = '') -> ConfigDict:
  config = clip_zero_shot.get_config(weights)
  config.baseline.kind = 'clip_gradient'
  config.eval.batch_size = 16
  return config
