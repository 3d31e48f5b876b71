r"""Baseline: CLIP fine-tuned on the four scores (paper, table 1).

Two hidden fully connected layers on CLIP's features of image and prompt; everything is
trained. Weights and sizes as in `clip_zero_shot.py`.

  python -m rahf.main --workdir=… \
    --config=configs/baselines/clip_scores.py:clip-vit-base-patch32

Hardware: one GPU or TPU. Not yet run with the public weights. The paper reports on
RichHF-18K test: plausibility PLCC .390, alignment PLCC .398.
"""

from ml_collections import ConfigDict

from configs.baselines import clip_zero_shot


def get_config(weights: str = '') -> ConfigDict:
  config = clip_zero_shot.get_config(weights)
  config.baseline.kind = 'clip_scores'
  config.loss.update(heatmap=0.0, sequence=0.0)
  config.optimizer.update(learning_rate=1e-5, warmup_steps=500, cooldown_steps=1000)
  # The head starts from nothing.
  config.optimizer.rate_factors = (('^score_layers/', 30.0),)
  config.train.update(steps=5000, batch_size=64)
  config.eval.update(every=1000, split='dev')
  return config
