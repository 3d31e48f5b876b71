"""A small Muse that draws shapes: text encoder, autoencoder, then transformer.

  python -m rahf.main --config=configs/muse_shapes.py:text
  python -m rahf.main --config=configs/muse_shapes.py:text --mode=export
  python -m rahf.main --config=configs/muse_shapes.py:autoencoder
  python -m rahf.main --config=configs/muse_shapes.py:autoencoder --mode=export
  python -m rahf.main --config=configs/muse_shapes.py:generator
  python -m rahf.main --config=configs/muse_shapes.py:generator --mode=export

With `text,short`, `autoencoder,short` and `generator,short` a tenth of the steps shows
that everything runs.

It learns the shapes of the small world as they are, damaged and misaligned ones
included, so that feedback has something to improve. A token stands for 4 x 4 pixels
alone, so that a plain background is one token; the transformer works on a grid of 8 x
8. As in aMUSEd, the text encoder is that of a CLIP: a small one, which is trained by
contrast on the prompts that fit their images, and then stays as it is. Its tokens tell
the transformer more than it would find by itself: a prompt's colour is right for 60 %
of the images only.
"""

from ml_collections import ConfigDict

from configs.baselines import shapes_clip
from rahf.config import default_config

LEVELS = (8, 6, 5)
CODES = 240  # The product of the levels.
TEXT = dict(width=96, layers=3, heads=4, mlp=384, gelu='exact')
TEXT_SIZES = dict(text=TEXT, text_length=24, vocab_size=560, projection=96)


def get_config(form: str = 'generator') -> ConfigDict:
  """Returns settings.

  Args:
    form: what to train, 'text', 'autoencoder' or 'generator'; with ',short' for a tenth
      of the steps.
  """
  part, *short = form.split(',')
  if part not in ('text', 'autoencoder', 'generator') or short not in ([], ['short']):
    raise ValueError(
      f'{form!r}: use text, autoencoder or generator, with or without ,short'
    )
  config = text_config(short) if part == 'text' else muse_config(part, short)
  train = 4000 if short else 20_000
  config.data.shapes.update(train=train, dev=200, test=500, world='small')
  return config


def text_config(short: list[str]) -> ConfigDict:
  """Returns settings of a CLIP, of which the text tower will be used."""
  config = shapes_clip.get_config()
  config.clip.update(TEXT_SIZES)
  config.data.text_length = TEXT_SIZES['text_length']
  steps = 80 if short else 800
  config.optimizer.update(warmup_steps=steps // 10, cooldown_steps=steps // 3)
  config.train.update(steps=steps, checkpoint_every=steps)
  config.eval.every = steps
  return config


def muse_config(part: str, short: list[str]) -> ConfigDict:
  """Returns settings of the autoencoder or of the transformer."""
  config = default_config()
  config.task = part
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
    conv_layers=0,
    conv_heads=4,
    downsample=True,
    positions=True,
    vocab_size=CODES + 1,
    codebook_size=CODES,
    text_width=96,
    pooled_width=96,
    frequencies=8,
  )
  muse.text.update(TEXT_SIZES)
  config.sampling.update(steps=24, guidance=2.5, sharpness=3.0)

  config.data.update(name='shapes', augment=False)
  config.train.update(batch_size=32, checkpoint_every=500)
  config.eval.update(every=500, batch_size=50)
  config.review.examples = 8
  if part == 'autoencoder':
    config.optimizer.update(learning_rate=4e-3, schedule='linear', warmup_steps=100)
    config.train.steps = 150 if short else 1500
    return config
  for role, trained in (('muse', 'autoencoder'), ('clip', 'text')):
    config.init[role] = '_'.join([f'runs/muse_shapes_{trained}', *short]) + '/export'
  config.optimizer.update(learning_rate=2e-3, schedule='linear', warmup_steps=200)
  config.optimizer.freeze = ('^autoencoder/', '^text/')
  config.train.update(steps=1000 if short else 10_000, average=0.999)
  return config
