"""Names and layouts of CLIP's arrays, and ours.

Hugging Face and OpenAI name the same arrays in two ways; OpenCLIP follows OpenAI, some
of its files with `text.` before the arrays of the text tower. OpenAI keeps query, key
and value in one array, and its projections as inputs x outputs.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from rahf.errors import InputError
from rahf.pretrained.hf_names import Arrange, Table, conv, dense, identity
from rahf.pretrained.source import Weight

FUSED = ('in_proj_weight', 'in_proj_bias')
IGNORED = {
  'position_ids': 'numbers of the positions',
  'attn_mask': 'causal mask',
  'input_resolution': 'size in pixels',
  'context_length': 'length of texts',
  'vocab_size': 'number of tokens',
}


def clip_table(vision_heads: int, text_heads: int) -> Table:
  """Returns the places of a CLIP's arrays, with `split_fused` applied."""
  vision, text = 'clip/vision', 'clip/text'
  hf_vision, hf_text = r'vision_model\.', r'text_model\.'
  ai_vision, ai_text = r'visual\.', r'(?:text\.)?'
  embeddings = r'embeddings\.'
  return [
    (r'logit_scale', 'clip/logit_scale', identity),
    (
      rf'(?:{hf_vision}{embeddings}|{ai_vision})class_embedding',
      f'{vision}/cls',
      identity,
    ),
    (
      rf'(?:{hf_vision}{embeddings}patch_embedding|{ai_vision}conv1)\.weight',
      f'{vision}/embedding/kernel',
      conv,
    ),
    (
      rf'{hf_vision}{embeddings}position_embedding\.weight|'
      rf'{ai_vision}positional_embedding',
      f'{vision}/positions',
      identity,
    ),
    *_norm(rf'{hf_vision}pre_layrnorm|{ai_vision}ln_pre', f'{vision}/pre_norm'),
    *_norm(rf'{hf_vision}post_layernorm|{ai_vision}ln_post', f'{vision}/post_norm'),
    (r'visual_projection\.weight', f'{vision}/projection/kernel', dense),
    (rf'{ai_vision}proj', f'{vision}/projection/kernel', identity),
    *_blocks(hf_vision, ai_vision, f'{vision}/block_', vision_heads),
    (
      rf'(?:{hf_text}{embeddings}|{ai_text})token_embedding\.weight',
      f'{text}/embedding',
      identity,
    ),
    (
      rf'{hf_text}{embeddings}position_embedding\.weight|'
      rf'{ai_text}positional_embedding',
      f'{text}/positions',
      identity,
    ),
    *_norm(rf'{hf_text}final_layer_norm|{ai_text}ln_final', f'{text}/final_norm'),
    (r'text_projection\.weight', f'{text}/projection/kernel', dense),
    (rf'{ai_text}text_projection', f'{text}/projection/kernel', identity),
    *_blocks(hf_text, ai_text, f'{text}/block_', text_heads),
  ]


def _blocks(hf: str, openai: str, ours: str, heads: int) -> Iterator:
  def to_heads(kernel: np.ndarray) -> np.ndarray:
    return kernel.T.reshape(kernel.shape[1], heads, -1)

  def bias_to_heads(bias: np.ndarray) -> np.ndarray:
    return bias.reshape(heads, -1)

  def from_heads(kernel: np.ndarray) -> np.ndarray:
    return kernel.T.reshape(heads, -1, kernel.shape[0])

  block = rf'(?:{hf}encoder\.layers|{openai}transformer\.resblocks)\.(\d+)\.'
  ours += r'\1'
  attention = f'{ours}/MultiHeadDotProductAttention_0'
  yield from _norm(rf'{block}(?:layer_norm1|ln_1)', f'{ours}/LayerNorm_0')
  yield from _norm(rf'{block}(?:layer_norm2|ln_2)', f'{ours}/LayerNorm_1')
  for name in ('query', 'key', 'value'):
    there = rf'{block}(?:self_attn|attn)\.{name[0]}_proj'
    yield rf'{there}\.weight', f'{attention}/{name}/kernel', to_heads
    yield rf'{there}\.bias', f'{attention}/{name}/bias', bias_to_heads
  there = rf'{block}(?:self_attn|attn)\.out_proj'
  yield rf'{there}\.weight', f'{attention}/out/kernel', from_heads
  yield rf'{there}\.bias', f'{attention}/out/bias', identity
  for i, names in enumerate((r'fc1|mlp\.c_fc', r'fc2|mlp\.c_proj')):
    there, mlp = rf'{block}(?:mlp\.{names})', f'{ours}/MlpBlock_0/Dense_{i}'
    yield rf'{there}\.weight', f'{mlp}/kernel', dense
    yield rf'{there}\.bias', f'{mlp}/bias', identity


def _norm(pattern: str, path: str) -> list[tuple[str, str, Arrange]]:
  return [
    (rf'(?:{pattern})\.weight', f'{path}/scale', identity),
    (rf'(?:{pattern})\.bias', f'{path}/bias', identity),
  ]


def split_fused(
  where: str, tensors: Mapping[str, Weight]
) -> Iterator[tuple[str, Weight]]:
  """Yields all arrays by name, OpenAI's joined query, key and value one by one.

  Raises:
    InputError: such an array is not three of one size.
  """
  for name, tensor in tensors.items():
    start, dot, last = name.rpartition('.')
    if last not in FUSED:
      yield name, tensor
      continue
    if not tensor.shape or tensor.shape[0] % 3:
      raise InputError(
        f'{where}: {name} {list(tensor.shape)} is not query, key and value'
      )
    kind = last.removeprefix('in_proj_')
    for part, letter in enumerate('qkv'):
      yield f'{start}{dot}{letter}_proj.{kind}', _third(tensor, part)


def _third(tensor: Weight, part: int) -> Weight:
  rows = tensor.shape[0] // 3

  def read() -> np.ndarray:
    return tensor.read()[part * rows : (part + 1) * rows]

  return dataclasses.replace(tensor, shape=(rows, *tensor.shape[1:]), read=read)
