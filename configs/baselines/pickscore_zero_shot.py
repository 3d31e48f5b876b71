r"""Baseline: PickScore as each of the four scores (paper, table 1).

PickScore is a CLIP ViT-H/14, fine-tuned on people's choices. Nothing is trained:

  python -m rahf.main --mode=eval --workdir=… \
    --config=configs/baselines/pickscore_zero_shot.py:PickScore_v1

`PickScore_v1` is its Hugging Face directory; if it has no vocabulary, set
`config.tokenizer` to that of laion/CLIP-ViT-H-14-laion2B-s32B-b79K.

Hardware: a CPU or GPU, for 986 M parameters. Not yet run with the public weights. The
paper reports on RichHF-18K test: alignment PLCC .346, overall .202.
"""

import dataclasses

from ml_collections import ConfigDict

from configs.baselines import clip_zero_shot
from rahf.data.schema import SCORES
from rahf.models.clip import SIZES


def get_config(weights: str = '') -> ConfigDict:
  config = clip_zero_shot.get_config(weights)
  if not weights:
    config.clip.update(dataclasses.asdict(SIZES['H/14']))
  config.baseline.scores = SCORES
  config.eval.batch_size = 16
  return config
