"""Maps names and layouts of Hugging Face's ViT and T5 arrays to ours.

PyTorch stores dense kernels as outputs x inputs and convolution kernels as outputs x
inputs x height x width; ours end in inputs, outputs. Our ViT's attention kernels have
an axis for the heads.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from rahf.errors import InputError
from rahf.pretrained.source import Weight

Arrange = Callable[[np.ndarray], np.ndarray]
# Rows of: pattern of their name, our path, and how the array is rearranged.
Table = Sequence[tuple[str, str, Arrange]]

# Prefixes that names have in larger models.
PREFIXES = re.compile(r'(?:(?:vit|model)\.)*')


def identity(array: np.ndarray) -> np.ndarray:
  """Returns an array unchanged: norms, biases, embeddings."""
  return array


def dense(kernel: np.ndarray) -> np.ndarray:
  """Converts outputs x inputs to inputs x outputs."""
  return kernel.T


def conv(kernel: np.ndarray) -> np.ndarray:
  """Converts outputs x inputs x height x width to height x width x inputs x outputs."""
  return kernel.transpose(2, 3, 1, 0)


def bare_name(name: str) -> str:
  """Returns a name without the prefixes of larger models."""
  return PREFIXES.sub('', name, count=1)


def rearranged(where: str, array: Weight, arrange: Arrange) -> Weight:
  """Returns an array in another layout.

  Raises:
    InputError: its shape does not allow it.
  """
  try:
    # A broadcast scalar takes no memory, whatever its shape.
    shape = arrange(np.broadcast_to(np.float32(0), array.shape)).shape
  except ValueError as error:
    raise InputError(f'{where}: {array.name} {list(array.shape)}: {error}') from None
  return dataclasses.replace(array, shape=shape, read=lambda: arrange(array.read()))


def rename_arrays(
  where: str, arrays: Iterable[tuple[str, Weight]], table: Table
) -> dict[str, Weight]:
  """Returns arrays by our path and in our layout.

  Args:
    where: the file or directory, for errors.
    arrays: pairs of a name as in the table and the array, in the file's layout.
    table: maps names to our paths.

  Raises:
    InputError: an array is not in the table, has an unexpected shape, or has the same
      path as another one.
  """
  weights: dict[str, Weight] = {}
  for name, array in arrays:
    found = _find(name, table)
    if found is None:
      raise InputError(
        f'{where}: {array.name} {list(array.shape)} has no place in the model'
      )
    path, arrange = found
    if path in weights:
      raise InputError(
        f'{where} contains both {weights[path].name} and {array.name}, which are the '
        'same parameter; remove one of them'
      )
    weights[path] = rearranged(where, array, arrange)
  return weights


def _find(name: str, table: Table) -> tuple[str, Arrange] | None:
  """Returns our path of an array and its rearrangement; None if not in the table."""
  for pattern, path, arrange in table:
    if match := re.fullmatch(pattern, name):
      return match.expand(path), arrange
  return None


def vit_table(heads: int) -> Table:
  """Returns the table of a ViT's arrays, without prefixes.

  Includes the names of transformers 4 (`encoder.layer.0.attention.attention.query`)
  and newer ones (`layers.0.attention.q_proj`).
  """

  layer = r'(?:encoder\.layer|layers)\.(\d+)\.'
  attention = {
    name: rf'{layer}attention\.(?:attention\.{name}|{name[0]}_proj)'
    for name in ('query', 'key', 'value')
  }
  attention['out'] = rf'{layer}attention\.(?:output\.dense|o_proj)'
  return [
    (r'embeddings\.cls_token', 'vit/cls', identity),
    (
      r'embeddings\.position_embeddings',
      'vit/Transformer/posembed_input/pos_embedding',
      identity,
    ),
    (
      r'embeddings\.patch_embeddings\.projection\.weight',
      'vit/embedding/kernel',
      conv,
    ),
    (r'embeddings\.patch_embeddings\.projection\.bias', 'vit/embedding/bias', identity),
    *layer_norm(r'layernorm', 'vit/Transformer/encoder_norm'),
    *block(
      r'vit/Transformer/encoderblock_\1',
      heads,
      norms=(rf'{layer}layernorm_before', rf'{layer}layernorm_after'),
      attention=attention,
      mlp=(
        rf'{layer}(?:intermediate\.dense|mlp\.fc1)',
        rf'{layer}(?:output\.dense|mlp\.fc2)',
      ),
    ),
  ]


def block(
  ours: str,
  heads: int,
  *,
  norms: tuple[str, str],
  attention: Mapping[str, str],
  mlp: tuple[str, str],
) -> Table:
  """Returns the rows of a `models.vit.Block`.

  Args:
    ours: the block's path.
    norms: patterns of the norms before attention and MLP.
    attention: patterns of query, key, value and out.
    mlp: patterns of its two layers.
  """

  def to_heads(kernel: np.ndarray) -> np.ndarray:
    return kernel.T.reshape(kernel.shape[1], heads, -1)

  def bias_to_heads(bias: np.ndarray) -> np.ndarray:
    return bias.reshape(heads, -1)

  def from_heads(kernel: np.ndarray) -> np.ndarray:
    return kernel.T.reshape(heads, -1, kernel.shape[0])

  rows = []
  for i, theirs in enumerate(norms):
    rows += layer_norm(theirs, f'{ours}/LayerNorm_{i}')
  for name, theirs in attention.items():
    kernel, bias = (to_heads, bias_to_heads)
    if name == 'out':
      kernel, bias = (from_heads, identity)
    path = f'{ours}/MultiHeadDotProductAttention_0/{name}'
    rows += [
      (rf'{theirs}\.weight', f'{path}/kernel', kernel),
      (rf'{theirs}\.bias', f'{path}/bias', bias),
    ]
  for i, theirs in enumerate(mlp):
    rows += [
      (rf'{theirs}\.weight', f'{ours}/MlpBlock_0/Dense_{i}/kernel', dense),
      (rf'{theirs}\.bias', f'{ours}/MlpBlock_0/Dense_{i}/bias', identity),
    ]
  return rows


def t5_table() -> Table:
  """Returns the table of a T5's arrays, without prefixes.

  Excludes the token embedding and the logits' kernel (see `embedding.py`).
  """
  encoder, decoder = r'encoder\.block\.(\d+)\.layer', r'decoder\.block\.(\d+)\.layer'
  bias = r'\.block\.0\.layer\.0\.SelfAttention\.relative_attention_bias\.weight'
  ours_encoder, ours_decoder = r't5/encoder/layers_\1', r't5/decoder/layers_\1'
  return [
    (rf'encoder{bias}', 't5/encoder/relpos_bias/rel_embedding', dense),
    *_part(rf'{encoder}\.0', 'SelfAttention', ours_encoder, 'attention'),
    *_mlp(rf'{encoder}\.1', ours_encoder),
    _scale(r'encoder\.final_layer', 't5/encoder/encoder_norm'),
    (rf'decoder{bias}', 't5/decoder/relpos_bias/rel_embedding', dense),
    *_part(rf'{decoder}\.0', 'SelfAttention', ours_decoder, 'self_attention'),
    *_part(
      rf'{decoder}\.1', 'EncDecAttention', ours_decoder, 'encoder_decoder_attention'
    ),
    *_mlp(rf'{decoder}\.2', ours_decoder),
    _scale(r'decoder\.final_layer', 't5/decoder/decoder_norm'),
  ]


def _part(theirs: str, module: str, ours: str, attention: str) -> Table:
  """Returns the rows of an attention layer and the norm before it."""
  norm = attention.replace('encoder_decoder', 'cross')
  return [
    _scale(rf'{theirs}\.layer', f'{ours}/pre_{norm}_layer_norm'),
    *(
      (
        rf'{theirs}\.{module}\.{name[0]}\.weight',
        f'{ours}/{attention}/{name}/kernel',
        dense,
      )
      for name in ('query', 'key', 'value', 'out')
    ),
  ]


def _mlp(theirs: str, ours: str) -> Table:
  """Returns the rows of an MLP and the norm before it."""
  kernel = r'\.DenseReluDense\.(wi|wi_0|wi_1|wo)\.weight'
  return [
    _scale(rf'{theirs}\.layer', f'{ours}/pre_mlp_layer_norm'),
    (theirs + kernel, rf'{ours}/mlp/\2/kernel', dense),
  ]


def _scale(theirs: str, ours: str) -> tuple[str, str, Arrange]:
  return rf'{theirs}_norm\.weight', f'{ours}/scale', identity


def layer_norm(pattern: str, path: str) -> Table:
  """Returns the rows of a layer norm."""
  return [
    (rf'(?:{pattern})\.weight', f'{path}/scale', identity),
    (rf'(?:{pattern})\.bias', f'{path}/bias', identity),
  ]
