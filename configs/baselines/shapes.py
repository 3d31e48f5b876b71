r"""The baselines on generated shapes, at the size of `quickstart.py`.

Start the CLIP baselines from the directory that `shapes_clip.py` exports. For example

  python -m rahf.main --workdir=runs/shapes_resnet_maps \
    --config=configs/baselines/shapes.py:resnet_maps
  python -m rahf.main --mode=eval --workdir=runs/shapes_clip_gradient \
    --config=configs/baselines/shapes.py:clip_gradient,runs/shapes_clip/export

`benchmarks/baselines.py` runs all of them, and RAHF, for equal time.

Hardware: two CPU cores.
"""

from ml_collections import ConfigDict

from configs import quickstart
from rahf.errors import InputError
from rahf.pretrained.formats import clip_settings


def get_config(argument: str = 'resnet_scores') -> ConfigDict:
  """Returns the config.

  Args:
    argument: a kind of `config.baseline.kind`, and after a comma the directory of a
      CLIP.
  """
  kind, _, clip = argument.partition(',')
  if kind.startswith('clip') and not clip:
    raise InputError(f'{kind} needs a CLIP; give shapes.py:{kind},DIRECTORY')
  config = quickstart.get_config()
  config.task = 'baseline'
  # 1.4 million parameters for scores, 2.5 million for maps; RAHF has 2.2 million.
  config.baseline.update(kind=kind, dense=(256, 128), deconvs=(96, 64, 32, 16, 16))
  config.resnet.update(blocks=(1, 1, 1, 1), width=24)
  config.optimizer.rate_factors = ()
  if clip:
    config.init.clip = clip
    config.clip.update(clip_settings(clip))
    config.data.update(text_length=config.clip.text_length, target_length=1)
  if kind == 'clip_scores':
    # The head starts from nothing, CLIP does not.
    config.optimizer.learning_rate = 1e-4
    config.optimizer.rate_factors = (('^score_layers/', 5.0),)
  config.eval.split = 'test'
  return config
