"""RAHF, multi-head (paper, section 4.2): one encoder pass, six heads and the decoder.

Otherwise the same as `augmented_prompt.py`.

  python -m rahf.main --config=configs/multi_head.py --workdir=…

Hardware: TPU or GPU nodes. Not yet run at this size. The paper reports on RichHF-18K
test: plausibility PLCC .666, implausibility CC .425, keywords F1 43.3.
"""

from ml_collections import ConfigDict

from rahf.config import T5_VOCABULARY, default_config


def get_config() -> ConfigDict:
  config = default_config()
  config.model.variant = 'multi_head'
  config.tokenizer = T5_VOCABULARY
  # Fits on eight TPU v5e of 16 GB: parameters sharded eight ways, eight micro-batches,
  # and blocks recomputed for the gradient instead of stored.
  config.mesh.update(data=1, fsdp=-1)
  config.train.accumulate = 8
  config.model.remat = 'blocks'
  return config
