r"""RAHF learns to describe images, and then starts from there to learn from feedback.

The paper added captioning to the mixture that its model was pretrained on (section
4.1). The augmented prompt at the paper's size, on images and captions of your own:

  python -m rahf.data prepare images --name cc12m --input 'cc12m/*.tar' --out data \
    --dev 0.0001 --test 0.0001
  python -m rahf.main --config=configs/pretrain_captions.py --config.data.name=cc12m \
    --workdir=runs/captions
  python -m rahf.main --config=configs/pretrain_captions.py --config.data.name=cc12m \
    --workdir=runs/captions --mode=export
  python -m rahf.main --config=configs/augmented_prompt.py --workdir=… \
    --config.init.rahf=runs/captions/export

Hardware: TPU or GPU nodes. Not yet run at this size. With `:shapes`, a model of the
quickstart's size on generated captions. Hardware: two CPU cores.
"""

from ml_collections import ConfigDict

from configs import augmented_prompt, quickstart


def get_config(size: str = 'paper') -> ConfigDict:
  """Returns settings.

  Args:
    size: 'paper', or 'shapes'.
  """
  if size not in ('paper', 'shapes'):
    raise ValueError(f'{size!r}: use paper or shapes')
  config = (quickstart if size == 'shapes' else augmented_prompt).get_config()
  config.task = 'captions'
  if size == 'shapes':
    config.data.name = 'shapes_captions'
    # A caption is not in the text, whose tokens are all that the quickstart's decoder
    # sees.
    config.model.decoder_sees_image = True
    config.optimizer.update(warmup_steps=200, cooldown_steps=700)
    config.train.update(steps=2000, batch_size=32, checkpoint_every=1000)
    config.eval.every = 1000
    config.review.examples = 8
  return config
