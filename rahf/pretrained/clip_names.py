"""Names and layouts of CLIP's arrays, and ours.

Hugging Face and OpenAI name the same arrays in two ways; OpenCLIP follows OpenAI, some
of its files with `text.` before the arrays of the text tower. OpenAI keeps query, key
and value in one array, and its projections as inputs x outputs.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from rahf.errors import InputError
from rahf.pretrained.hf_names import Table, block, conv, dense, identity, layer_norm
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
  """Returns the table of a CLIP's arrays, after `split_fused`."""
  vision, text = r'vision_model\.', r'text_model\.'
  ai_vision, ai_text = r'visual\.', r'(?:text\.)?'
  return [
    (r'logit_scale', 'clip/logit_scale', identity),
    (
      rf'(?:{vision}embeddings\.|{ai_vision})class_embedding',
      'clip/vision/cls',
      identity,
    ),
    (
      rf'(?:{vision}embeddings\.patch_embedding|{ai_vision}conv1)\.weight',
      'clip/vision/embedding/kernel',
      conv,
    ),
    *layer_norm(rf'{vision}pre_layrnorm|{ai_vision}ln_pre', 'clip/vision/pre_norm'),
    *layer_norm(rf'{vision}post_layernorm|{ai_vision}ln_post', 'clip/vision/post_norm'),
    (r'visual_projection\.weight', 'clip/vision/projection/kernel', dense),
    (rf'{ai_vision}proj', 'clip/vision/projection/kernel', identity),
    *_tower(vision, ai_vision, 'clip/vision', vision_heads),
    (
      rf'(?:{text}embeddings\.|{ai_text})token_embedding\.weight',
      'clip/text/embedding',
      identity,
    ),
    *layer_norm(rf'{text}final_layer_norm|{ai_text}ln_final', 'clip/text/final_norm'),
    (r'text_projection\.weight', 'clip/text/projection/kernel', dense),
    (rf'{ai_text}text_projection', 'clip/text/projection/kernel', identity),
    *_tower(text, ai_text, 'clip/text', text_heads),
  ]


def _tower(hf: str, openai: str, ours: str, heads: int) -> Table:
  """Returns the rows that both towers have: positions and blocks."""
  layer = rf'(?:{hf}encoder\.layers|{openai}transformer\.resblocks)\.(\d+)\.'
  names = ('query', 'key', 'value', 'out')
  return [
    (
      rf'{hf}embeddings\.position_embedding\.weight|{openai}positional_embedding',
      f'{ours}/positions',
      identity,
    ),
    *block(
      rf'{ours}/block_\1',
      heads,
      norms=(rf'{layer}(?:layer_norm1|ln_1)', rf'{layer}(?:layer_norm2|ln_2)'),
      attention={
        name: rf'{layer}(?:self_attn|attn)\.{name if name == "out" else name[0]}_proj'
        for name in names
      },
      mlp=(rf'{layer}mlp\.(?:fc1|c_fc)', rf'{layer}mlp\.(?:fc2|c_proj)'),
    ),
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
