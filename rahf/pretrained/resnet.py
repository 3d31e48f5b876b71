"""Reads ResNet-50's weights: torchvision's and timm's files, Hugging Face directories.

torchvision and timm use the same names. The classifier is not used.
"""

import re
from collections.abc import Mapping

import jax
from etils import epath
from flax import linen as nn
from flax import traverse_util

from rahf.errors import InputError
from rahf.models.resnet import ResNetConfig, init_variables
from rahf.pretrained import hf_config
from rahf.pretrained.hf_names import Table, bare_name, conv, identity, rename_arrays
from rahf.pretrained.source import Source, Weight
from rahf.pretrained.tensors import Tensors, read_weights

IGNORED = {
  r'.*num_batches_tracked': 'counter of batches',
  r'fc\..*|classifier\..*': 'classifier',
}
# Arrays that every ResNet of bottlenecks in torchvision's names has.
RESNET_ARRAYS = {'conv1.weight', 'bn1.running_mean', 'layer1.0.conv3.weight'}
STAGES = 4
STATISTICS = {'running_mean': 'mean', 'running_var': 'var'}


def open_resnet(path: epath.PathLike) -> Source:
  """Opens a file of torchvision or timm without reading its arrays.

  Args:
    path: written by torch.save, or safetensors; local or in a bucket (gs://…).

  Raises:
    InputError: it is another architecture, damaged, or not safe to read.
  """
  return _open(epath.Path(path), read_weights(epath.Path(path)), _torchvision_table())


def from_huggingface(
  directory: epath.Path, config: hf_config.Config, tensors: Tensors
) -> Source:
  """Opens a ResNet as transformers saves it; as `huggingface.open_huggingface`."""
  config.only('layer_type', 'bottleneck')
  config.only('downsample_in_bottleneck', False)  # True is v1.
  config.only('downsample_in_first_stage', False)
  config.only('hidden_act', 'relu')
  config.only('num_channels', 3)
  return _open(directory, tensors, _hf_table())


def _open(path: epath.Path, tensors: Tensors, table: Table) -> Source:
  where = str(path)
  ignored = {
    name: reason
    for name in tensors
    for pattern, reason in IGNORED.items()
    if re.fullmatch(pattern, name)
  }
  arrays = ((bare_name(n).removeprefix('resnet.'), t) for n, t in tensors.items())
  used = ((name, t) for name, t in arrays if t.name not in ignored)
  placed = rename_arrays(where, used, table)
  statistics = {p: w for p, w in placed.items() if p.startswith('batch_stats/')}
  weights = {p: w for p, w in placed.items() if p not in statistics}
  config = _sizes(where, placed)
  return Source(
    'ResNet',
    where,
    weights,
    ignored,
    {'resnet.blocks': config.blocks, 'resnet.width': config.width},
    collections=statistics,
  )


def _torchvision_table() -> Table:
  table = _unit('conv1', 'bn1', 'conv1', 'bn1')
  for stage in range(STAGES):
    block, ours = rf'layer{stage + 1}\.(\d+)\.', rf'stage{stage}_\1/'
    for i in (1, 2, 3):
      names = f'conv{i}', f'bn{i}'
      table += _unit(*(block + n for n in names), *(ours + n for n in names))
    there = rf'{block}downsample\.'
    table += _unit(
      f'{there}0', f'{there}1', f'{ours}downsample_conv', f'{ours}downsample_bn'
    )
  return table


def _hf_table() -> Table:
  def unit(there: str, conv_path: str, norm_path: str) -> list:
    return _unit(f'{there}convolution', f'{there}normalization', conv_path, norm_path)

  table = unit(r'embedder\.embedder\.', 'conv1', 'bn1')
  for stage in range(STAGES):
    block, ours = rf'encoder\.stages\.{stage}\.layers\.(\d+)\.', rf'stage{stage}_\1/'
    for i in range(3):
      table += unit(rf'{block}layer\.{i}\.', f'{ours}conv{i + 1}', f'{ours}bn{i + 1}')
    there = rf'{block}shortcut\.'
    table += unit(there, f'{ours}downsample_conv', f'{ours}downsample_bn')
  return table


def _unit(there_conv: str, there_norm: str, conv_path: str, norm_path: str) -> list:
  """Returns the places of a convolution and the norm after it."""
  return [
    (rf'{there_conv}\.weight', f'resnet/{conv_path}/kernel', conv),
    (rf'{there_norm}\.weight', f'resnet/{norm_path}/scale', identity),
    (rf'{there_norm}\.bias', f'resnet/{norm_path}/bias', identity),
    *(
      (rf'{there_norm}\.{theirs}', f'batch_stats/resnet/{norm_path}/{ours}', identity)
      for theirs, ours in STATISTICS.items()
    ),
  ]


def _sizes(where: str, weights: Mapping[str, Weight]) -> ResNetConfig:
  blocks = [0] * STAGES
  for path in weights:
    if match := re.match(r'resnet/stage(\d)_(\d+)/', path):
      stage, number = map(int, match.groups())
      blocks[stage] = max(blocks[stage], number + 1)
  if 'resnet/conv1/kernel' not in weights or 0 in blocks:
    raise InputError(f'{where} is not a whole ResNet of {STAGES} stages')
  config = ResNetConfig(tuple(blocks), weights['resnet/conv1/kernel'].shape[-1])
  if missing := sorted(_paths(config) - weights.keys()):
    raise InputError(
      f'{where} is not a whole ResNet: it lacks {", ".join(missing[:5])}'
    )
  return config


def _paths(config: ResNetConfig) -> set[str]:
  """Returns the paths of all parameters and statistics."""
  variables = jax.eval_shape(lambda: init_variables(config, jax.random.key(0)))
  parts = nn.unbox(variables)
  return {
    *traverse_util.flatten_dict({'resnet': parts['params']}, sep='/'),
    *traverse_util.flatten_dict(
      {'batch_stats': {'resnet': parts['batch_stats']}}, sep='/'
    ),
  }
