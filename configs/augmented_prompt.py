"""RAHF with an augmented prompt: the paper's better variant (section 4.2).

A task string before the prompt selects one map or score at a time; two heads and the
decoder give all seven outputs. ViT-B/16 at 512 px, T5 1.1 base, batch 256.

  python -m rahf.main --config=configs/augmented_prompt.py --workdir=…

Hardware: TPU or GPU nodes. Not yet run at this size. The paper reports on RichHF-18K
test: plausibility PLCC .693, implausibility CC .556, keywords F1 43.9.
"""

from ml_collections import ConfigDict

from rahf.config import T5_VOCABULARY, default_config


def get_config() -> ConfigDict:
  # The defaults are this variant and its sizes: see RAHFConfig, ViTConfig and T5Config
  # in rahf/models/, and rahf/config/settings.py for the recipe.
  config = default_config()
  config.tokenizer = T5_VOCABULARY
  # Fits on eight TPU v5e of 16 GB: parameters sharded eight ways, eight micro-batches,
  # and blocks recomputed for the gradient instead of stored.
  config.mesh.update(data=1, fsdp=-1)
  config.train.accumulate = 8
  config.model.remat = 'blocks'
  # Equal layers are compiled once.
  config.model.loop = True
  return config
