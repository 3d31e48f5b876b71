"""RAHF, multi-head (paper, section 4.2): one encoder pass, six heads and the decoder.

Otherwise the same as `augmented_prompt.py`.

  python -m rahf.main --config=configs/multi_head.py --workdir=…

Hardware: TPU or GPU nodes. Not yet run at this size. The paper reports on RichHF-18K
test: plausibility PLCC .666, implausibility CC .425, keywords F1 43.3.
"""

from ml_collections import ConfigDict

from configs import augmented_prompt


def get_config() -> ConfigDict:
  config = augmented_prompt.get_config()
  config.model.variant = 'multi_head'
  return config
