r"""A small CLIP, trained contrastively on generated shapes and their prompts.

The baselines of `shapes.py` start from it: no public CLIP has seen such pictures. Only
prompts whose words all fit their image are used. Then `--mode=export` writes a Hugging
Face directory to WORKDIR/export.

  python -m rahf.main --config=configs/baselines/shapes_clip.py \
    --workdir=runs/shapes_clip [--mode=export]

Hardware: two CPU cores.
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
  config = quickstart.get_config()
  config.task = 'contrastive'
  tower = dict(width=128, layers=3, heads=4, mlp=512, gelu='exact')
  config.clip.update(
    image_size=64,
    patch=8,
    vision=tower,
    text=tower,
    text_length=32,
    vocab_size=600,
    projection=128,
  )
  config.data.update(text_length=32, target_length=1, aligned_only=True)
  config.optimizer.update(rate_factors=(), warmup_steps=200, cooldown_steps=500)
  config.train.update(steps=2000, batch_size=64, checkpoint_every=1000)
  config.eval.update(every=1000)
  return config
