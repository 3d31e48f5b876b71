r"""PickScore on generated pairs: a small CLIP learns which picture people prefer.

Six generators of shapes with known rates of defects, and simulated users who see ties
(`rahf/data/datasets/shapes/pairs.py`). The pairs are generated on the first run; the
best possible accuracies and the true order of the generators are in their truth.json.

  python -m rahf.main --config=configs/pickscore_shapes.py --workdir=runs/pickscore

To see it work, make it shorter:

  python -m rahf.main --config=configs/pickscore_shapes.py --workdir=runs/short \
    --config.pairs.shapes.train=1000 --config.train.steps=100 \
    --config.optimizer.warmup_steps=10

With `:DIRECTORY` it starts from a CLIP in Hugging Face's format, such as the export of
`configs/baselines/shapes_clip.py`.

Hardware: two CPU cores.
"""

from ml_collections import ConfigDict

from configs import pickscore


def get_config(weights: str = '') -> ConfigDict:
  """Returns the config; `weights` are those of a CLIP to start from."""
  config = pickscore.get_config(weights)
  if not weights:
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
  config.clip.dtype = 'float32'
  config.optimizer.update(learning_rate=5e-4, warmup_steps=100, weight_decay=0.01)
  config.train.update(steps=1500, batch_size=64, checkpoint_every=500, log_every=50)
  config.eval.update(every=500, batch_size=50)
  return config
