"""A small Muse that draws shapes: its autoencoder, then its transformer.

  python -m rahf.main --config=configs/muse_shapes.py:autoencoder
  python -m rahf.main --config=configs/muse_shapes.py:autoencoder --mode=export
  python -m rahf.main --config=configs/muse_shapes.py:generator
  python -m rahf.main --config=configs/muse_shapes.py:generator --mode=export

With `autoencoder,short` and `generator,short` a tenth of the steps shows that
everything runs.

It learns the shapes of the small world as they are, damaged and misaligned ones
included, so that feedback has something to improve. A token stands for 4 x 4 pixels
alone, so that a plain background is one token; the transformer works on a grid of 8 x
8.
"""

from ml_collections import ConfigDict

from rahf.config import default_config

LEVELS = (8, 6, 5)
CODES = 240  # The product of the levels.


def get_config(form: str = 'generator') -> ConfigDict:
  """Returns settings.

  Args:
    form: the task, 'autoencoder' or 'generator'; with ',short' a tenth of the steps.
  """
  task, *short = form.split(',')
  if task not in ('autoencoder', 'generator') or short not in ([], ['short']):
    raise ValueError(f'{form!r}: use autoencoder or generator, with or without ,short')
  config = default_config()
  config.task = task
  muse = config.muse
  muse.image_size = 64
  muse.autoencoder.update(
    widths=(32,), blocks=0, groups=8, latents=16, levels=LEVELS, patch=4, local=True
  )
  muse.transformer.update(
    width=128,
    layers=4,
    heads=4,
    mlp=384,
    embedding=128,
    channels=128,
    conv_layers=1,
    conv_heads=4,
    downsample=True,
    positions=True,
    vocab_size=CODES + 1,
    codebook_size=CODES,
    text_width=96,
    pooled_width=96,
    frequencies=8,
  )
  muse.text.update(text_length=24, vocab_size=560, projection=96)
  muse.text.text.update(width=96, layers=2, heads=4, mlp=192)
  config.sampling.update(steps=8, guidance=3.0)

  config.data.update(name='shapes', augment=False)
  train = 4000 if short else 20_000
  config.data.shapes.update(train=train, dev=200, test=500, world='small')
  config.train.update(batch_size=32, checkpoint_every=500)
  config.eval.update(every=500, batch_size=50)
  config.review.examples = 8
  if task == 'autoencoder':
    config.optimizer.update(learning_rate=4e-3, schedule='linear', warmup_steps=100)
    config.train.steps = 150 if short else 1500
    return config
  config.init.muse = '_'.join(['runs/muse_shapes_autoencoder', *short]) + '/export'
  config.optimizer.update(learning_rate=2e-3, schedule='linear', warmup_steps=200)
  config.optimizer.freeze = ('^autoencoder/',)
  config.train.update(steps=500 if short else 5000, average=0.999)
  return config
