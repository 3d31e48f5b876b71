r"""Baseline: a ResNet-50 that predicts the four scores (paper, table 1).

ImageNet weights, mean pooling, two hidden fully connected layers; it never sees the
prompt. `resnet50.pth` is torchvision's, timm's or Hugging Face's ResNet-50; without
`init.resnet` it learns from scratch.

  python -m rahf.main --config=configs/baselines/resnet50_scores.py \
    --config.init.resnet=resnet50.pth --workdir=…

Hardware: one GPU or TPU. Not yet run with the public weights. The paper reports on
RichHF-18K test: plausibility PLCC .495, overall PLCC .337.
"""

from ml_collections import ConfigDict

from rahf.config import T5_VOCABULARY, default_config


def get_config() -> ConfigDict:
  config = default_config()
  config.task = 'baseline'
  config.baseline.kind = 'resnet_scores'
  config.model.update(variant='multi_head', image_size=512)
  config.tokenizer = T5_VOCABULARY  # Of the same batches as RAHF's; not used.
  config.loss.update(heatmap=0.0, sequence=0.0)
  config.optimizer.update(learning_rate=1e-4, warmup_steps=500, cooldown_steps=1000)
  config.train.update(steps=5000, batch_size=64)
  config.eval.update(every=1000, batch_size=64)
  return config
