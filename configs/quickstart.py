"""Quickstart: a tiny RAHF on generated shapes.

Section 4 of the paper at the smallest size that learns something: 64 px, 2.2 M
parameters, and the multi-head variant, which has one text per image instead of seven
and therefore learns fastest on a CPU.

  python -m rahf.main --config=configs/quickstart.py --workdir=runs/quickstart

Hardware: two CPU cores. Time: 10 to 20 minutes, data and evaluation included. On its
test split: implausibility CC .63, misalignment CC .76, plausibility PLCC .66,
alignment PLCC .63, keywords F1 60%.
"""

from ml_collections import ConfigDict

from rahf.config import default_config


def get_config() -> ConfigDict:
  config = default_config()
  model = config.model
  model.variant = 'multi_head'
  model.image_size = 64
  model.dropout_rate = 0.0
  model.dtype = 'float32'
  model.vit.update(patch=8, width=128, layers=3, heads=4, mlp=512)
  model.t5.update(
    vocab_size=288,
    width=128,
    heads=4,
    head_dim=32,
    mlp=256,
    encoder_layers=3,
    decoder_layers=2,
  )
  # Maps are predicted at half the image's size and upscaled, as one more stage would
  # cost as much as everything else.
  model.heatmap_head.update(convs=(64,), deconvs=(32, 16), readout=16)
  model.score_head.update(convs=(64, 64), dense=(128,))

  # As in the first author's model; the text tokens are already fused with the image's.
  model.decoder_sees_image = False

  config.data.update(name='shapes', text_length=24, target_length=28, augment=False)
  config.data.shapes.update(train=20_000, dev=200, test=500)

  # Mean squared errors start at 0.005 for a map and 0.06 for a score: with equal
  # weights, the text's cross-entropy would dominate both.
  config.loss.update(heatmap=400.0, score=10.0, sequence=2.0)
  config.optimizer.update(learning_rate=5e-4, warmup_steps=400, cooldown_steps=1150)
  # T5 was designed for Adafactor, whose steps scale with a parameter's size. With
  # AdamW, position biases trained from scratch would take thousands of steps to become
  # sharp, and the decoder cannot copy the prompt until then.
  config.optimizer.rate_factors = (('relpos_bias', 30.0),)
  config.train.update(steps=3500, batch_size=16, checkpoint_every=1750)
  config.eval.update(every=1750, batch_size=50)
  return config
