r"""Baseline: a ResNet-50 that predicts both maps (paper, tables 2 and 3).

Like `resnet50_scores.py`, with five deconvolutions up to the image's size instead of
the fully connected layers.

  python -m rahf.main --config=configs/baselines/resnet50_maps.py \
    --config.init.resnet=resnet50.pth --workdir=…

Hardware: one GPU or TPU. Not yet run with the public weights. The paper reports on
RichHF-18K test: implausibility CC .506.
"""

from ml_collections import ConfigDict

from configs.baselines import resnet50_scores


def get_config() -> ConfigDict:
  config = resnet50_scores.get_config()
  config.baseline.kind = 'resnet_maps'
  config.loss.update(heatmap=1.0, score=0.0)
  return config
