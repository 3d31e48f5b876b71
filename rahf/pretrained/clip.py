"""Reads CLIP's weights: Hugging Face directories, OpenAI's and OpenCLIP's files.

Sizes are read from the arrays. The number of heads and the activation are not in them:
they come from the config beside the weights, or from the published sizes, or must be
given.
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from etils import epath
from flax import traverse_util

from rahf.errors import InputError
from rahf.models.clip import MEAN, SIZES, STD, CLIPConfig, TowerConfig, abstract_params
from rahf.pretrained import hf_config
from rahf.pretrained.clip_names import IGNORED, clip_table, split_fused
from rahf.pretrained.hf_names import rename_arrays
from rahf.pretrained.source import Source, Weight
from rahf.pretrained.tensors import Tensors, read_weights

GELUS = {
  'quick_gelu': 'quick',
  'gelu': 'exact',
  'gelu_new': 'tanh',
  'gelu_pytorch_tanh': 'tanh',
}
OPENCLIP_CONFIG = 'open_clip_config.json'
OPENCLIP_WEIGHTS = ('open_clip_model.safetensors', 'open_clip_pytorch_model.bin')
# 3 is bicubic.
HUGGINGFACE_PIXELS = {'resample': 3} | dict.fromkeys(
  ('do_resize', 'do_center_crop', 'do_rescale', 'do_normalize'), True
)
# What OpenCLIP's description may say of the preparation of images and of each tower;
# its other choices would compute something else from the same arrays.
OPENCLIP_PIXELS = {'interpolation': 'bicubic', 'resize_mode': 'shortest'}
OPENCLIP_VISION = {
  **{'pool_type': 'tok', 'global_average_pool': False, 'attentional_pool': False},
  **{'norm_kwargs': {}, 'act_kwargs': {}, 'no_ln_pre': False, 'ls_init_value': None},
}
OPENCLIP_TEXT = {
  **{'pool_type': 'argmax', 'no_causal_mask': False, 'embed_cls': False},
  **{'norm_kwargs': {}, 'act_kwargs': {}, 'ls_init_value': None},
}
# Arrays that every CLIP in OpenAI's names has.
CLIP_ARRAYS = {'visual.class_embedding', 'visual.proj', 'logit_scale'}
# What OpenAI's TorchScript files hold beside the weights.
OPENAI_MARK = 'input_resolution'
# Our setting, the field of a tower in config.json, its default by tower.
TOWER_SIZES = {
  'width': ('hidden_size', {'vision': 768, 'text': 512}),
  'layers': ('num_hidden_layers', {'vision': 12, 'text': 12}),
  'heads': ('num_attention_heads', {'vision': 12, 'text': 8}),
  'mlp': ('intermediate_size', {'vision': 3072, 'text': 2048}),
}


@dataclasses.dataclass(frozen=True)
class Hint:
  """Settings of a tower that its arrays do not show.

  Attributes:
    heads: attention heads; None if unknown.
    gelu: as `TowerConfig.gelu`; '' if unknown.
  """

  heads: int | None = None
  gelu: str = ''
  norm_epsilon: float = 1e-5


# By tower, 'vision' and 'text'.
Hints = Mapping[str, Hint]
NO_HINTS: Hints = {'vision': Hint(), 'text': Hint()}


def text_cleaning(weights: epath.Path) -> str:
  """Returns how a CLIP was trained to clean texts, as `clip_tokenizer.CLEANINGS`.

  As Hugging Face does for its directories, and otherwise as OpenAI does.
  """
  return 'huggingface' if (weights / 'config.json').exists() else 'openai'


def openclip_weights(directory: epath.Path) -> epath.Path | None:
  """Returns OpenCLIP's file of weights in a directory; None if there is none."""
  files = (directory / name for name in OPENCLIP_WEIGHTS)
  return next((file for file in files if file.exists()), None)


def open_clip(path: epath.PathLike, hints: Hints = NO_HINTS) -> Source:
  """Opens a file in OpenAI's names without reading its arrays.

  Args:
    path: a file of OpenAI (.pt) or OpenCLIP; local or in a bucket (gs://…).
    hints: settings of the towers that the files do not state.

  Raises:
    InputError: it is of another architecture, damaged or not safe to read, or nothing
      says how many heads it has or which activation; names what to give.
  """
  path = epath.Path(path)
  tensors = read_weights(path)
  if any(name.startswith('vision_model.') for name in tensors):
    raise InputError(
      f'{path} contains a CLIP with the names of Hugging Face; give its directory, '
      'which must also contain config.json'
    )
  _, _, sizes = _place(path, tensors, {name: Hint(1) for name in NO_HINTS})
  stated, kind = _published(sizes), 'OpenCLIP'
  described = path.parent / OPENCLIP_CONFIG
  if OPENAI_MARK in tensors:
    kind = 'OpenAI CLIP'
    stated = {n: dataclasses.replace(t, gelu='quick') for n, t in stated.items()}
  elif described.exists():
    stated = _openclip_config(described, sizes)
  towers = {
    name: Hint(tower.heads or hints[name].heads, tower.gelu or hints[name].gelu)
    for name, tower in stated.items()
  }
  for name, tower in towers.items():
    _check_known(path, name, getattr(sizes, name).width, tower)
  weights, ignored, sizes = _place(path, tensors, towers)
  return _source(kind, path, weights, ignored, sizes)


def from_huggingface(
  directory: epath.Path, config: hf_config.Config, tensors: Tensors
) -> Source:
  """Opens a CLIP as transformers saves it; as `huggingface.open_huggingface`."""
  fields = {name: _tower_config(config, name) for name in ('vision', 'text')}
  towers = {
    name: Hint(
      heads=tower.count('num_attention_heads', TOWER_SIZES['heads'][1][name]),
      gelu=tower.choice('hidden_act', 'quick_gelu', GELUS),
      norm_epsilon=_epsilon(tower),
    )
    for name, tower in fields.items()
  }
  prepared = directory / 'preprocessor_config.json'
  if prepared.exists():
    pixels = hf_config.Config(prepared)
    _check_pixels(pixels, 'image_mean', 'image_std')
    for field, value in HUGGINGFACE_PIXELS.items():
      pixels.only(field, value)
  weights, ignored, sizes = _place(directory, tensors, towers)
  for name, tower in fields.items():
    found = getattr(sizes, name)
    for ours, (theirs, default) in TOWER_SIZES.items():
      _check_size(tower, theirs, default[name], getattr(found, ours))
  vision, text = fields['vision'], fields['text']
  _check_size(vision, 'image_size', 224, sizes.image_size)
  _check_size(vision, 'patch_size', 32, sizes.patch)
  _check_size(text, 'vocab_size', 49408, sizes.vocab_size)
  _check_size(text, 'max_position_embeddings', 77, sizes.text_length)
  _check_size(config, 'projection_dim', 512, sizes.projection)
  return _source('Hugging Face CLIP', directory, weights, ignored, sizes)


def _epsilon(tower: hf_config.Config) -> float:
  epsilon = tower.number('layer_norm_eps', 1e-5)
  if not 1e-30 <= epsilon <= 1:
    tower.fail(f'layer_norm_eps is {epsilon!r}, but should be from 1e-30 to 1')
  return float(epsilon)


def _tower_config(config: hf_config.Config, name: str) -> hf_config.Config:
  """Returns a tower's fields; transformers lets an older spelling overrule."""
  return config.section(f'{name}_config', f'{name}_config_dict')


def _check_size(config: hf_config.Config, field: str, default: int, found: int) -> None:
  if (value := config.count(field, default)) != found:
    config.fail(
      f'{field} is {value}, but the weights have {found}; use the config.json that '
      'belongs to them'
    )


def _published(sizes: CLIPConfig) -> Hints:
  """Returns the heads of the published model of these sizes."""
  for config in SIZES.values():
    if _sizes_alone(config) == _sizes_alone(sizes):
      return {
        'vision': Hint(config.vision.heads),
        'text': Hint(config.text.heads),
      }
  return NO_HINTS


def _sizes_alone(config: CLIPConfig) -> tuple[int, ...]:
  """Returns the sizes that tell a model, but for those of image and vocabulary."""
  towers = config.vision, config.text
  return config.patch, *(n for t in towers for n in (t.width, t.layers, t.mlp))


def _openclip_config(path: epath.Path, sizes: CLIPConfig) -> Hints:
  """Reads OpenCLIP's own description of a model, and checks it against the arrays."""
  config = hf_config.Config(path)
  _check_pixels(config.section('preprocess_cfg'), 'mean', 'std')
  for field, value in OPENCLIP_PIXELS.items():
    config.section('preprocess_cfg').only(field, value)
  model = config.section('model_cfg')
  vision, text = model.section('vision_cfg'), model.section('text_cfg')
  for section, fields in ((vision, OPENCLIP_VISION), (text, OPENCLIP_TEXT)):
    for field, value in fields.items():
      section.only(field, value)
  for section, field, found in (
    (vision, 'width', sizes.vision.width),
    (vision, 'layers', sizes.vision.layers),
    (vision, 'patch_size', sizes.patch),
    (vision, 'image_size', sizes.image_size),
    (text, 'width', sizes.text.width),
    (text, 'layers', sizes.text.layers),
    (text, 'context_length', sizes.text_length),
  ):
    _check_size(section, field, found, found)
  gelu = 'quick' if model.flag('quick_gelu', False) else 'exact'
  return {
    'vision': Hint(sizes.vision.width // vision.count('head_width', 64), gelu),
    'text': Hint(text.count('heads', 8), gelu),
  }


def _check_pixels(config: hf_config.Config, mean: str, std: str) -> None:
  """Raises InputError unless images are normalised as OpenAI's models take them."""
  for field, known in ((mean, MEAN), (std, STD)):
    found = config.get(field, known.tolist())
    numbers = isinstance(found, list) and all(type(x) in (int, float) for x in found)
    if not numbers or len(found) != 3 or not np.allclose(found, known, atol=1e-4):
      config.fail(
        f"{field} is {found!r:.80}; only OpenAI's normalisation of images can be read, "
        f'{known.tolist()}'
      )


def _check_known(path: epath.Path, name: str, width: int, tower: Hint) -> None:
  if not tower.heads or width % tower.heads:
    raise InputError(
      f'{path} has a {name} tower of width {width}, and nothing says how many '
      f'attention heads; put its {OPENCLIP_CONFIG} next to it, or, for training and '
      f'evaluation, give --config.clip.{name}.heads, with the weights in '
      '--config.init.clip and not after the colon of --config (in Python: '
      f"hints={{'{name}': Hint(heads=…), …}})"
    )
  if not tower.gelu:
    raise InputError(
      f'{path} does not say which activation its {name} tower has; put its '
      f'{OPENCLIP_CONFIG} next to it, or, for training and evaluation, give '
      '--config.init.clip_gelu=quick (configs/baselines take it after the path: '
      f"{path.name},quick; open_source takes hints={{'{name}': Hint(gelu='quick'), "
      '…}) for a model of OpenAI or one whose name ends with -quickgelu, and exact '
      'for others'
    )


def _place(
  path: epath.Path, tensors: Mapping[str, Weight], hints: Hints
) -> tuple[dict[str, Weight], dict[str, str], CLIPConfig]:
  """Returns the arrays by our paths, those that are ignored, and the sizes."""
  where = str(path)
  ignored = {
    name: reason for name in tensors if (reason := IGNORED.get(name.rpartition('.')[2]))
  }
  used = {name: t for name, t in tensors.items() if name not in ignored}
  table = clip_table(*(hints[name].heads for name in ('vision', 'text')))
  weights = rename_arrays(where, split_fused(where, used), table)
  return weights, ignored, _sizes(where, weights, hints)


def _sizes(where: str, weights: Mapping[str, Weight], hints: Hints) -> CLIPConfig:
  def shape(name: str) -> tuple[int, ...]:
    if f'clip/{name}' not in weights:
      raise InputError(f'{where} is not a whole CLIP: it lacks clip/{name}')
    return weights[f'clip/{name}'].shape

  def tower(name: str, width: int) -> TowerConfig:
    layers = {int(p.split('_')[1].split('/')[0]) for p in weights if _of(p, name)}
    return TowerConfig(
      width=width,
      layers=len(layers),
      heads=hints[name].heads,
      mlp=shape(f'{name}/block_0/MlpBlock_0/Dense_0/kernel')[1],
      gelu=hints[name].gelu,
      norm_epsilon=hints[name].norm_epsilon,
    )

  patch = shape('vision/embedding/kernel')[0]
  tokens = shape('vision/positions')[0] - 1
  if math.isqrt(tokens) ** 2 != tokens:
    raise InputError(
      f'{where} has positions of {tokens} patches, which is not a square'
    )
  return CLIPConfig(
    image_size=patch * math.isqrt(tokens),
    patch=patch,
    vision=tower('vision', shape('vision/cls')[0]),
    text=tower('text', shape('text/embedding')[1]),
    text_length=shape('text/positions')[0],
    vocab_size=shape('text/embedding')[0],
    projection=shape('text/projection/kernel')[1],
  )


def _of(path: str, name: str) -> bool:
  return path.startswith(f'clip/{name}/block_')


def _source(
  kind: str,
  path: epath.Path,
  weights: Mapping[str, Weight],
  ignored: Mapping[str, str],
  sizes: CLIPConfig,
) -> Source:
  expected = {f'clip/{name}' for name in _paths(sizes)}
  if missing := sorted(expected - weights.keys()):
    raise InputError(
      f'{path} is not a whole CLIP: it lacks {", ".join(missing[:5])}'
      + (f' and {len(missing) - 5} more' if len(missing) > 5 else '')
    )
  return Source(kind, str(path), weights, ignored, dict(_fields(sizes, 'clip.')))


def _paths(sizes: CLIPConfig) -> Iterable[str]:
  return traverse_util.flatten_dict(abstract_params(sizes), sep='/')


def _fields(config: Any, prefix: str) -> Any:
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      yield from _fields(value, f'{prefix}{field.name}.')
    elif field.name != 'dtype':
      yield prefix + field.name, value


def clip_config(source: Source, dtype: str = 'float32') -> CLIPConfig:
  """Returns the sizes of an opened CLIP."""
  fields: dict[str, Any] = collections.defaultdict(dict)
  for path, value in source.settings.items():
    _, *parents, name = path.split('.')
    (fields[parents[0]] if parents else fields)[name] = value
  towers = {name: TowerConfig(**fields.pop(name)) for name in ('vision', 'text')}
  return CLIPConfig(**fields, **towers, dtype=dtype)
