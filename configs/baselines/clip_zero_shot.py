r"""Baseline: CLIP's cosine of image and prompt as the alignment score (paper, table 1).

Nothing is trained: `--mode=eval` with the weights of any CLIP, which also give its
sizes: a Hugging Face directory, OpenAI's .pt, or an OpenCLIP file. The vocabulary
should lie in the same directory; otherwise set `config.tokenizer`. If a file does not
state its activation, add it: `…:FILE,exact` or `…:FILE,quick`.

  python -m rahf.main --mode=eval --workdir=… \
    --config=configs/baselines/clip_zero_shot.py:clip-vit-base-patch32

Hardware: a CPU. Not yet run with the public weights. The paper reports on RichHF-18K
test: alignment PLCC .185 (its size of CLIP is not known).
"""

from ml_collections import ConfigDict

from rahf.config import default_config
from rahf.pretrained.formats import clip_settings


def get_config(weights: str = '') -> ConfigDict:
  """Returns the config.

  Args:
    weights: path of a CLIP, and after a comma its activation if it does not state it;
      '' for the sizes of OpenAI's ViT-B/32 and no weights.
  """
  config = default_config()
  config.task = 'baseline'
  config.baseline.kind = 'clip_zero_shot'
  path, _, gelu = weights.partition(',')
  config.init.update(clip=path, clip_gelu=gelu)
  if path:
    config.clip.update(clip_settings(path, gelu))
  config.model.update(variant='multi_head', image_size=config.clip.image_size)
  config.data.update(text_length=config.clip.text_length, target_length=1)
  config.eval.split = 'test'
  return config
