"""Names and layouts of Hugging Face's ViT and T5 arrays, and ours.

PyTorch keeps a dense kernel as outputs x inputs and a convolution's as outputs x
inputs x height x width; ours end in inputs, outputs. The ViT's attention kernels have
an axis for the heads.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from rahf.errors import InputError
from rahf.pretrained.source import Weight

Arrange = Callable[[np.ndarray], np.ndarray]
# Patterns of names, our paths, and how the array is arranged.
Table = Sequence[tuple[str, str, Arrange]]

# Prefixes that a larger model adds.
PREFIXES = re.compile(r'(?:(?:vit|model)\.)*')


def keep(array: np.ndarray) -> np.ndarray:
  """Leaves an array as it is: norms, biases, embeddings."""
  return array


def dense(kernel: np.ndarray) -> np.ndarray:
  """Turns outputs x inputs into inputs x outputs."""
  return kernel.T


def conv(kernel: np.ndarray) -> np.ndarray:
  """Turns outputs x inputs x height x width into height x width x inputs x outputs."""
  return kernel.transpose(2, 3, 1, 0)


def bare_name(name: str) -> str:
  """Returns a name without the prefixes that a larger model adds."""
  return PREFIXES.sub('', name, count=1)


def arranged(where: str, array: Weight, arrange: Arrange) -> Weight:
  """Returns an array in another layout.

  Raises:
    InputError: it cannot be arranged so, by its shape.
  """
  try:
    # This has no values of its own, whatever its size.
    shape = arrange(np.broadcast_to(np.float32(0), array.shape)).shape
  except ValueError as error:
    raise InputError(f'{where}: {array.name} {list(array.shape)}: {error}') from None
  return dataclasses.replace(array, shape=shape, read=lambda: arrange(array.read()))


def place(
  where: str, arrays: Iterable[tuple[str, Weight]], table: Table
) -> dict[str, Weight]:
  """Returns arrays by our path.

  Args:
    where: the file or directory, for errors.
    arrays: pairs of a name as in the table and the array, as the file has it.
    table: where each array belongs.

  Raises:
    InputError: an array has no place, another shape than such arrays have, or the
      same place as another one.
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
        f'{where} holds both {weights[path].name} and {array.name}, which are the '
        'same parameter; remove one of them'
      )
    weights[path] = arranged(where, array, arrange)
  return weights


def _find(name: str, table: Table) -> tuple[str, Arrange] | None:
  """Returns our path of an array and how to arrange it; None if it has no place."""
  for pattern, path, arrange in table:
    if match := re.fullmatch(pattern, name):
      return match.expand(path), arrange
  return None


def vit_table(heads: int) -> Table:
  """Returns the places of a ViT's arrays, prefixes removed.

  Both spellings: that of transformers 4 (`encoder.layer.0.attention.attention.query`)
  and the newer one (`layers.0.attention.q_proj`).
  """

  def to_heads(kernel: np.ndarray) -> np.ndarray:
    return kernel.T.reshape(kernel.shape[1], heads, -1)

  def bias_to_heads(bias: np.ndarray) -> np.ndarray:
    return bias.reshape(heads, -1)

  def from_heads(kernel: np.ndarray) -> np.ndarray:
    return kernel.T.reshape(heads, -1, kernel.shape[0])

  layer = r'(?:encoder\.layer|layers)\.(\d+)\.'
  block = r'vit/Transformer/encoderblock_\1/'
  attention = f'{block}MultiHeadDotProductAttention_0/'
  table = [
    (r'embeddings\.cls_token', 'vit/cls', keep),
    (
      r'embeddings\.position_embeddings',
      'vit/Transformer/posembed_input/pos_embedding',
      keep,
    ),
    (
      r'embeddings\.patch_embeddings\.projection\.weight',
      'vit/embedding/kernel',
      conv,
    ),
    (r'embeddings\.patch_embeddings\.projection\.bias', 'vit/embedding/bias', keep),
    *_layer_norm(r'layernorm', 'vit/Transformer/encoder_norm'),
    *_layer_norm(rf'{layer}layernorm_before', f'{block}LayerNorm_0'),
    *_layer_norm(rf'{layer}layernorm_after', f'{block}LayerNorm_1'),
  ]
  for name in ('query', 'key', 'value'):
    there = rf'{layer}attention\.(?:attention\.{name}|{name[0]}_proj)'
    table += [
      (rf'{there}\.weight', f'{attention}{name}/kernel', to_heads),
      (rf'{there}\.bias', f'{attention}{name}/bias', bias_to_heads),
    ]
  out = rf'{layer}attention\.(?:output\.dense|o_proj)'
  table += [
    (rf'{out}\.weight', f'{attention}out/kernel', from_heads),
    (rf'{out}\.bias', f'{attention}out/bias', keep),
  ]
  mlp = (r'(?:intermediate\.dense|mlp\.fc1)', r'(?:output\.dense|mlp\.fc2)')
  for i, there in enumerate(mlp):
    table += [
      (rf'{layer}{there}\.weight', f'{block}MlpBlock_0/Dense_{i}/kernel', dense),
      (rf'{layer}{there}\.bias', f'{block}MlpBlock_0/Dense_{i}/bias', keep),
    ]
  return table


def t5_table() -> Table:
  """Returns the places of a T5's arrays, prefixes removed.

  All but the token embedding and the kernel of the logits (`embedding.py`).
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


def _part(there: str, module: str, ours: str, attention: str) -> Table:
  """An attention and the norm before it."""
  norm = attention.replace('encoder_decoder', 'cross')
  return [
    _scale(rf'{there}\.layer', f'{ours}/pre_{norm}_layer_norm'),
    *(
      (
        rf'{there}\.{module}\.{name[0]}\.weight',
        f'{ours}/{attention}/{name}/kernel',
        dense,
      )
      for name in ('query', 'key', 'value', 'out')
    ),
  ]


def _mlp(there: str, ours: str) -> Table:
  """An MLP and the norm before it."""
  kernel = r'\.DenseReluDense\.(wi|wi_0|wi_1|wo)\.weight'
  return [
    _scale(rf'{there}\.layer', f'{ours}/pre_mlp_layer_norm'),
    (there + kernel, rf'{ours}/mlp/\2/kernel', dense),
  ]


def _scale(there: str, ours: str) -> tuple[str, str, Arrange]:
  return rf'{there}_norm\.weight', f'{ours}/scale', keep


def _layer_norm(pattern: str, path: str) -> Table:
  return [
    (rf'{pattern}\.weight', f'{path}/scale', keep),
    (rf'{pattern}\.bias', f'{path}/bias', keep),
  ]
