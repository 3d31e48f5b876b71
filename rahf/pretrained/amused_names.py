"""Names and layouts of the arrays of aMUSEd, as diffusers has them, and ours.

diffusers joins the two factors of gated feed-forward layers in one array.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from rahf.errors import InputError
from rahf.pretrained.hf_names import Arrange, Table, conv, dense, identity, layer_norm
from rahf.pretrained.source import Weight

AUTOENCODER, TRANSFORMER = 'autoencoder', 'transformer'
GATED = '.ff.net.0.proj.weight'


def transposed_conv(kernel: np.ndarray) -> np.ndarray:
  """Converts inputs x outputs x height x width to inputs, height, width, outputs."""
  return kernel.transpose(0, 2, 3, 1)


def pointwise(kernel: np.ndarray) -> np.ndarray:
  """Converts a 1x1 convolution to inputs x outputs."""
  if kernel.shape[2:] != (1, 1):
    raise ValueError('it should be outputs x inputs x 1 x 1')
  return kernel[:, :, 0, 0].T


def autoencoder_table(stages: int) -> Table:
  """Returns the table of the autoencoder's arrays.

  Args:
    stages: number of stages of each of the two networks.
  """
  table = [
    (r'quantize\.embedding\.weight', f'{AUTOENCODER}/code_table', identity),
    *_conv(r'quant_conv', f'{AUTOENCODER}/quant_conv'),
    *_conv(r'post_quant_conv', f'{AUTOENCODER}/post_quant_conv'),
  ]
  for part, blocks, change, ours in (
    ('encoder', 'down_blocks', r'downsamplers\.0\.conv', 'halve'),
    ('decoder', 'up_blocks', r'upsamplers\.0\.conv', 'double'),
  ):
    here = f'{AUTOENCODER}/{part}'
    table += [
      *_conv(rf'{part}\.conv_in', f'{here}/conv_in'),
      *_conv(rf'{part}\.conv_out', f'{here}/conv_out'),
      *layer_norm(rf'{part}\.conv_norm_out', f'{here}/norm_out'),
      *_residual(rf'{part}\.mid_block\.resnets\.(\d+)', rf'{here}/mid_block\1'),
    ]
    for stage in range(stages):
      there, place = rf'{part}\.{blocks}\.{stage}', f'{here}/stage{stage}'
      table += _residual(rf'{there}\.resnets\.(\d+)', rf'{place}_block\1')
      table += _conv(rf'{there}\.{change}', f'{place}_{ours}')
  return table


def _residual(there: str, ours: str) -> Table:
  table = _conv(rf'{there}\.conv_shortcut', f'{ours}/shortcut')
  for i in (1, 2):
    table += _conv(rf'{there}\.conv{i}', f'{ours}/conv{i}')
    table += layer_norm(rf'{there}\.norm{i}', f'{ours}/norm{i}')
  return table


def _conv(there: str, ours: str) -> list[tuple[str, str, Arrange]]:
  return [
    (rf'{there}\.weight', f'{ours}/kernel', conv),
    (rf'{there}\.bias', f'{ours}/bias', identity),
  ]


def transformer_table(heads: int, conv_heads: int) -> Table:
  """Returns the table of the transformer's arrays, after `split_gated`."""
  names = {
    'encoder_proj': ('text_project', dense),
    'cond_embed.linear_1': ('condition_0', dense),
    'cond_embed.linear_2': ('condition_1', dense),
    'embed.conv': ('embedding_project', pointwise),
    'down_block.downsample.conv': ('halve', conv),
    'up_block.upsample.conv': ('double', transposed_conv),
    'project_to_hidden': ('project_in', dense),
    'project_from_hidden': ('project_out', dense),
    'mlm_layer.conv1': ('logits_in', pointwise),
    'mlm_layer.conv2': ('logits', pointwise),
  }
  norms = {
    'encoder_proj_layer_norm': 'text_norm',
    'embed.layer_norm': 'embedding_norm',
    'down_block.downsample.norm': 'halve_norm',
    'up_block.upsample.norm': 'double_norm',
    'project_to_hidden_norm': 'norm_in',
    'project_from_hidden_norm': 'norm_out',
    'mlm_layer.layer_norm': 'logits_norm',
  }
  table = [(r'embed\.embeddings\.weight', f'{TRANSFORMER}/embedding', identity)]
  for theirs, (ours, arrange) in names.items():
    table.append(_kernel(_escaped(theirs), f'{TRANSFORMER}/{ours}', arrange))
  for theirs, ours in norms.items():
    table.append(_scale(_escaped(theirs), f'{TRANSFORMER}/{ours}'))
  for side in ('down', 'up'):
    table += _conv_block(
      rf'{side}_block\.res_blocks\.(\d+)', rf'{TRANSFORMER}/{side}_conv_\1'
    )
    table += _cross_block(
      rf'{side}_block\.attention_blocks\.(\d+)',
      rf'{TRANSFORMER}/{side}_attention_\1',
      conv_heads,
    )
  return table + _block(r'transformer_layers\.(\d+)', rf'{TRANSFORMER}/block_\1', heads)


def _conv_block(there: str, ours: str) -> Table:
  return [
    _kernel(rf'{there}\.depthwise', f'{ours}/depthwise', conv),
    _scale(rf'{there}\.norm', f'{ours}/norm'),
    _kernel(rf'{there}\.channelwise_linear_1', f'{ours}/mlp_in', dense),
    (rf'{there}\.channelwise_norm\.gamma', f'{ours}/response_norm/scale', np.ravel),
    (rf'{there}\.channelwise_norm\.beta', f'{ours}/response_norm/bias', np.ravel),
    _kernel(rf'{there}\.channelwise_linear_2', f'{ours}/mlp_out', dense),
    _kernel(rf'{there}\.cond_embeds_mapper', f'{ours}/modulated/modulation', dense),
  ]


def _cross_block(there: str, ours: str, heads: int) -> Table:
  table = [_kernel(rf'{there}\.kv_mapper', f'{ours}/text', dense)]
  for i in (1, 2):
    table.append(_scale(rf'{there}\.norm{i}', f'{ours}/norm{i}'))
    table += _attention(rf'{there}\.attn{i}', f'{ours}/attention{i}', heads)
  return table


def _block(there: str, ours: str, heads: int) -> Table:
  table = [
    *_attention(rf'{there}\.attn1', f'{ours}/self_attention', heads),
    *_attention(rf'{there}\.attn2', f'{ours}/text_attention', heads),
    _kernel(rf'{there}\.ff\.value', f'{ours}/mlp_value', dense),
    _kernel(rf'{there}\.ff\.gate', f'{ours}/mlp_gate', dense),
    _kernel(rf'{there}\.ff\.net\.2', f'{ours}/mlp_out', dense),
  ]
  for i in (1, 2, 3):
    norm, place = rf'{there}\.norm{i}', f'{ours}/norm{i}'
    table.append(_scale(rf'{norm}\.norm', place))
    table.append(_kernel(rf'{norm}\.linear', f'{place}_modulated/modulation', dense))
  return table


def _attention(there: str, ours: str, heads: int) -> Table:
  def to_heads(kernel: np.ndarray) -> np.ndarray:
    return kernel.T.reshape(kernel.shape[1], heads, -1)

  def from_heads(kernel: np.ndarray) -> np.ndarray:
    return kernel.T.reshape(heads, -1, kernel.shape[0])

  return [
    *(
      _kernel(rf'{there}\.to_{name[0]}', f'{ours}/{name}', to_heads)
      for name in ('query', 'key', 'value')
    ),
    _kernel(rf'{there}\.to_out\.0', f'{ours}/out', from_heads),
  ]


def _kernel(there: str, ours: str, arrange: Arrange) -> tuple[str, str, Arrange]:
  return rf'{there}\.weight', f'{ours}/kernel', arrange


def _scale(there: str, ours: str) -> tuple[str, str, Arrange]:
  return rf'{there}\.weight', f'{ours}/scale', identity


def _escaped(name: str) -> str:
  return name.replace('.', r'\.')


def split_gated(
  where: str, tensors: Mapping[str, Weight]
) -> Iterator[tuple[str, Weight]]:
  """Yields all arrays by name; of a gated layer's value and gate one by one.

  Raises:
    InputError: such an array is not two of one size.
  """
  for name, tensor in tensors.items():
    if not name.endswith(GATED):
      yield name, tensor
      continue
    if len(tensor.shape) != 2 or tensor.shape[0] % 2:
      raise InputError(
        f'{where}: {name} {list(tensor.shape)} is not a value and its gate'
      )
    start = name.removesuffix(GATED)
    for i, part in enumerate(('value', 'gate')):
      yield f'{start}.ff.{part}.weight', _half(tensor, i)


def _half(tensor: Weight, part: int) -> Weight:
  rows = tensor.shape[0] // 2

  def read() -> np.ndarray:
    return tensor.read()[part * rows : (part + 1) * rows]

  return dataclasses.replace(tensor, shape=(rows, *tensor.shape[1:]), read=read)
