"""Reads the public PyTorch checkpoint of RAHF, in its multi-head and single-head form.

Both contain a ViT and a T5 with Hugging Face's names, and heads, in one file
(`torch.save`) or a Hugging Face directory. The multi-head form is our `multi_head`, the
single-head form our `augmented_prompt` with other task strings (`TASK_PREFIXES`). Both
were trained on prompts without punctuation: words joined by single spaces.

The original has no padding mask, and pads captions to the longest in their batch.
Therefore `mask_padding` is not among the settings: with it, our model gives the
original's outputs for each prompt alone; without it, those for a batch padded to our
length.
"""

import re
from collections.abc import Mapping
from typing import Any

from etils import epath

from rahf.errors import InputError
from rahf.models.rahf import MAPS, SCORES
from rahf.pretrained.embedding import NAMES, find_embedding
from rahf.pretrained.hf_names import bare_name, rename_arrays, t5_table, vit_table
from rahf.pretrained.positions import grid_of
from rahf.pretrained.rahf_torch_names import (
  CONVS,
  DENSE,
  SCORE_CONVS,
  STAGES,
  head_table,
)
from rahf.pretrained.source import Source, Weight
from rahf.pretrained.t5x import t5_settings
from rahf.pretrained.tensors import (
  INDEX,
  PICKLE,
  PICKLE_INDEX,
  SINGLE,
  read_tensors,
  read_torch,
)
from rahf.pretrained.vit_npz import vit_settings

LICENCE = (
  'The weights of the public RAHF checkpoint are licensed CC BY-NC 4.0: you may use '
  'and share them, and what is trained from them, if you name their authors, but not '
  'for commercial purposes.'
)
# Width -> number of attention heads of the released ViTs, Ti to H; shapes do not tell.
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
# Prefixes of the prompt, in the order of our texts.
TASK_PREFIXES = (
  *(f'<output> HEATMAP: {name} </output> ' for name in MAPS),
  *(f'<output> SCORE: {name} </output> ' for name in SCORES),
  '',
)
# Name prefixes that only this model has.
OWN_PREFIXES = ('heatmap_predictor.', 'score_predictor.')


def find_rahf_torch(directory: epath.Path) -> epath.Path | None:
  """Returns the directory or its only .pt file; None if it contains something else.

  Raises:
    InputError: there are several .pt files, or unreadable weights without a
      config.json.
  """
  if any((directory / n).exists() for n in (SINGLE, INDEX, PICKLE, PICKLE_INDEX)):
    try:
      names = read_tensors(directory)
    except InputError:
      if (directory / 'config.json').exists():
        return None  # Perhaps another model, whose reader will report the problem.
      raise
    return directory if any(n.startswith(OWN_PREFIXES) for n in names) else None
  files = sorted(directory.glob('*.pt'))
  if len(files) > 1:
    shown = ', '.join(file.name for file in files[:5])
    raise InputError(f'{directory} contains {shown}; name one of these files')
  return files[0] if files else None


def open_rahf_torch(
  path: epath.PathLike, *, vit_heads: int | None = None, vit_width: int | None = None
) -> Source:
  """Opens a checkpoint without reading its arrays.

  Args:
    path: the .pt file or a Hugging Face directory, local or in a bucket (gs://…).
    vit_heads: attention heads of a ViT whose width is not in `HEADS`.
    vit_width: the only width that `vit_heads` applies to; None for any.

  Raises:
    InputError: it is not such a checkpoint, is damaged or not safe to read, or the
      number of its ViT's heads is unknown.
  """
  path = epath.Path(path)
  tensors = read_tensors(path) if path.is_dir() else read_torch(path)
  tables = {
    'vit.': vit_table(_vit_heads(path, tensors, vit_heads, vit_width)),
    't5.': t5_table(),
    '': head_table(_score_channels(path, tensors)),
  }
  parts: dict[str, list[tuple[str, Weight]]] = {prefix: [] for prefix in tables}
  ignored = {}
  for name, tensor in tensors.items():
    if name.startswith('vit.pooler.'):
      ignored[name] = 'pooler of the class token'
      continue
    prefix = next(prefix for prefix in tables if name.startswith(prefix))
    parts[prefix].append((bare_name(name.removeprefix('t5.')), tensor))
  weights, copies = find_embedding(str(path), parts['t5.'], tied=True)
  parts['t5.'] = [pair for pair in parts['t5.'] if pair[0] not in NAMES]
  for prefix, arrays in parts.items():
    weights |= rename_arrays(str(path), arrays, tables[prefix])
  ignored |= copies
  return Source(
    kind='PyTorch RAHF checkpoint',
    path=str(path),
    weights=weights,
    ignored=ignored,
    settings=_settings(weights, path),
    licence=LICENCE,
    tasks=None
    if any(path.startswith('score_head_') for path in weights)
    else TASK_PREFIXES,
    joined_words=True,
  )


def _vit_heads(
  path: epath.PathLike,
  tensors: Mapping[str, Weight],
  given: int | None,
  given_width: int | None,
) -> int:
  """Returns the ViT's number of attention heads."""
  width = _shape(path, tensors, r'vit\.embeddings\.cls_token')[-1]
  if given_width not in (None, width):
    given = None
  heads = HEADS.get(width, given)
  if not heads or width % heads:
    raise InputError(
      f'{path} has a ViT of width {width}, but does not tell its number of attention '
      f'heads; give --config.model.vit.width={width} and --config.model.vit.heads=… '
      '(in Python, pass vit_heads to open_rahf_torch)'
    )
  return heads


def _score_channels(path: epath.PathLike, tensors: Mapping[str, Weight]) -> int:
  last = 3 * (SCORE_CONVS - 1)
  pattern = rf'score_predictor\.(\w+\.)?conv_layers\.{last}\.bias'
  return _shape(path, tensors, pattern)[0]


def _shape(
  path: epath.PathLike, tensors: Mapping[str, Weight], pattern: str
) -> tuple[int, ...]:
  """Returns the shape of the first tensor whose name matches."""
  for name, tensor in tensors.items():
    if re.fullmatch(pattern, name) and tensor.shape:
      return tensor.shape
  shown = ', '.join(list(tensors)[:3])
  raise InputError(
    f'{path} is not a PyTorch RAHF checkpoint: it contains {shown}, …, but no name '
    f'matches {pattern}. For a Hugging Face T5 or ViT, give the directory, which must '
    'also contain config.json'
  )


def _settings(weights: Mapping[str, Weight], path: epath.PathLike) -> dict[str, Any]:
  """Returns the model settings that the weights were trained with."""
  vit = vit_settings(weights, path)
  multi_head = any(name.startswith('heatmap_head_') for name in weights)
  maps = 'heatmap_head_implausibility' if multi_head else 'heatmap_head'
  scores = 'score_head_plausibility' if multi_head else 'score_head'

  def widths(*layers: str) -> tuple[int, ...]:
    return tuple(weights[f'{layer}/bias'].shape[0] for layer in layers)

  try:
    _, side = grid_of(weights['vit/Transformer/posembed_input/pos_embedding'].shape[1])
    heads = {
      'heatmap_head.convs': widths(*(f'{maps}/conv_{i}' for i in range(CONVS))),
      'heatmap_head.deconvs': widths(
        *(f'{maps}/stage_{i}/deconv' for i in range(STAGES))
      ),
      'heatmap_head.readout': widths(f'{maps}/readout_0')[0],
      'score_head.convs': widths(*(f'{scores}/conv_{i}' for i in range(SCORE_CONVS))),
      'score_head.dense': widths(*(f'{scores}/{name}' for name in DENSE[:-1])),
    }
  except KeyError as error:
    raise InputError(f'{path} is not a PyTorch RAHF checkpoint: no {error}') from None
  return {
    'variant': 'multi_head' if multi_head else 'augmented_prompt',
    'image_size': side * vit['vit.patch'],
    **vit,
    'vit.norm_epsilon': 1e-12,
    'vit.gelu': 'exact',
    **t5_settings(weights, path),
    **heads,
    'heatmap_head.relu_before_norm': True,
    'score_head.size': 3,
    'score_head.stride': 1,
    'score_head.padding': 'SAME',
    'keep_class_token': True,
    'decoder_sees_image': False,
  }
