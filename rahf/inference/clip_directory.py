"""A CLIP of other projects, PickScore among them, as it is read for scoring.

Its weights are a Hugging Face directory, a directory of OpenCLIP, or a file of OpenAI
or OpenCLIP (`pretrained/clip.py`), with the vocabulary in the same directory.
"""

import dataclasses
import functools
import hashlib
import json
import math
import types
from typing import Any

import numpy as np
from etils import epath
from flax import traverse_util

from rahf.data.clip_tokenizer import ClipTokenizer
from rahf.errors import InputError
from rahf.inference import output_ranges
from rahf.models.clip import CLIPConfig, abstract_params
from rahf.pretrained import loading
from rahf.pretrained.clip import clip_config, openclip_weights, text_cleaning
from rahf.pretrained.formats import open_source
from rahf.pretrained.source import Source
from rahf.runtime.tree import by_path

CONFIG = 'config.json'
ROLE = 'clip'
WHERE_VOCABULARY = (
  'A CLIP is scored with the vocabulary that it was trained with: copy its files next '
  'to the weights (for PickScore_v1, those of laion/CLIP-ViT-H-14-laion2B-s32B-b79K)'
)


@dataclasses.dataclass(frozen=True)
class ClipDescription:
  """What is known of a CLIP before its parameters are read.

  Attributes:
    source: its opened weights.
    model: the architecture.
    scale: the exponential of its `logit_scale`, by which cosines are multiplied.
    tokenizer: for the prompts.
    step: None; the files do not say.
  """

  source: Source
  model: CLIPConfig
  scale: float
  tokenizer: ClipTokenizer
  step: None = None

  @property
  def image_size(self) -> int:
    return self.model.image_size

  @property
  def outputs(self) -> output_ranges.ModelOutputs:
    return output_ranges.clip_outputs(self.scale)

  @property
  def summary(self) -> str:
    return f'{self.source.kind}, {self.image_size} px'

  @functools.cached_property
  def fingerprint(self) -> str:
    """SHA-256 of everything that results depend on; reads all weights.

    Does not depend on the names of the files or on how weights are split over them.
    """
    tokenizer = self.tokenizer
    others = [
      dataclasses.asdict(self.model),
      *(tokenizer.cleaning, tokenizer.length, *tokenizer.vocabulary),
    ]
    state = hashlib.sha256(json.dumps(others).encode())
    for path, weight in sorted(self.source.weights.items()):
      array = np.asarray(weight.read(), np.float32)
      state.update(f'{path}{array.shape}'.encode())
      state.update(array.tobytes())
    return state.hexdigest()


def is_clip(path: epath.Path) -> bool:
  """Returns whether an existing path may be a CLIP: a file, or a directory of one."""
  if not path.is_dir():
    return True
  return (path / CONFIG).exists() or openclip_weights(path) is not None


def read_description(path: epath.Path) -> ClipDescription:
  """Reads everything but the parameters.

  Raises:
    InputError: the files are damaged or of another model, or do not say what is needed;
      there is no vocabulary, or it is that of another model; or the extra `clip` is not
      installed.
  """
  source = open_source(path)
  if 'clip.vision.width' not in source.settings:
    raise InputError(f'{path} is a {source.kind}, not a CLIP; {_advice(source)}')
  model = clip_config(source)
  scale = float(np.exp(np.float64(source.weights['clip/logit_scale'].read())))
  if not math.isfinite(scale):
    raise InputError(f'{path} is damaged: its logit_scale is not finite; copy it again')
  return ClipDescription(source, model, scale, _read_tokenizer(path, model))


def _advice(source: Source) -> str:
  if 'variant' in source.settings:
    return (
      'export it first: python -m rahf.main --config=configs/rahf_torch.py '
      f'--config.init.rahf={source.path} --mode=export --config.export.dir=DIR'
    )
  return 'give a model directory of --mode=export, or a CLIP'


def _read_tokenizer(path: epath.Path, model: CLIPConfig) -> ClipTokenizer:
  folder = path if path.is_dir() else path.parent
  try:
    tokenizer = ClipTokenizer(folder, text_cleaning(path), model.text_length)
    tokenizer.ids('a')  # Imports what cleaning needs.
  except InputError as error:
    raise InputError(f'{error}. {WHERE_VOCABULARY}') from None
  except ModuleNotFoundError as error:
    raise InputError(
      f'{path} is a CLIP, and {error.name} is not installed, which its prompts need: '
      "pip install 'rahf[clip]'"
    ) from None
  if (tokenizer.size, tokenizer.end_id) != (model.vocab_size, model.vocab_size - 1):
    raise InputError(
      f'{folder} has a vocabulary of {tokenizer.size:,} tokens that ends texts with '
      f'number {tokenizer.end_id:,}, but the weights have {model.vocab_size:,} tokens, '
      f'of which the last must be the end. {WHERE_VOCABULARY}'
    )
  return tokenizer


def read_params(description: ClipDescription) -> dict[str, Any]:
  """Reads all parameters as a tree of float32 arrays.

  Raises:
    InputError: they are damaged, or do not fit the architecture.
  """
  expected = by_path({ROLE: abstract_params(description.model)})
  settings = types.SimpleNamespace(clip=description.model)
  plan = loading.plan({ROLE: description.source}, expected, settings)
  arrays = {path: plan.read_one(path) for path in expected}
  return traverse_util.unflatten_dict(arrays, sep='/')[ROLE]
