"""Writes small models in the format of transformers, but without transformers."""

import json
import pathlib

import numpy as np
from safetensors.numpy import save_file

T5 = {
  'model_type': 't5',
  'vocab_size': 20,
  'd_model': 8,
  'd_kv': 2,
  'num_heads': 3,
  'd_ff': 12,
  'num_layers': 1,
}
VIT = {
  'model_type': 'vit',
  'hidden_size': 8,
  'num_hidden_layers': 1,
  'num_attention_heads': 2,
  'intermediate_size': 12,
  'image_size': 4,
  'patch_size': 2,
}
RNG = np.random.default_rng(0)
# A file of weights in a clone without `git lfs pull`.
POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n'


def random(*shape: int) -> np.ndarray:
  return RNG.standard_normal(shape, np.float32)


def t5_arrays() -> dict[str, np.ndarray]:
  """Returns the arrays of a T5 v1.0 of one layer, as transformers names them."""
  arrays = {'shared.weight': random(20, 8)}
  for side, parts in (
    ('encoder', ['SelfAttention']),
    ('decoder', ['SelfAttention', 'EncDecAttention']),
  ):
    block = f'{side}.block.0.layer'
    for i, part in enumerate(parts):
      arrays[f'{block}.{i}.layer_norm.weight'] = random(8)
      for name in 'qkv':
        arrays[f'{block}.{i}.{part}.{name}.weight'] = random(6, 8)
      arrays[f'{block}.{i}.{part}.o.weight'] = random(8, 6)
    bias = f'{block}.0.SelfAttention.relative_attention_bias.weight'
    arrays[bias] = random(32, 3)
    mlp = f'{block}.{len(parts)}'
    arrays[f'{mlp}.layer_norm.weight'] = random(8)
    arrays[f'{mlp}.DenseReluDense.wi.weight'] = random(12, 8)
    arrays[f'{mlp}.DenseReluDense.wo.weight'] = random(8, 12)
    arrays[f'{side}.final_layer_norm.weight'] = random(8)
  return arrays


def write(folder: pathlib.Path, config: dict, arrays=None) -> pathlib.Path:
  folder.mkdir(exist_ok=True)
  (folder / 'config.json').write_text(json.dumps(config))
  if arrays:
    save_file(arrays, folder / 'model.safetensors')
  return folder


def vit_arrays() -> dict[str, np.ndarray]:
  """Returns the arrays of a ViT of one layer, as transformers names them."""
  block = 'encoder.layer.0'
  kernels = {
    f'{block}.attention.attention.query': (8, 8),
    f'{block}.attention.attention.key': (8, 8),
    f'{block}.attention.attention.value': (8, 8),
    f'{block}.attention.output.dense': (8, 8),
    f'{block}.intermediate.dense': (12, 8),
    f'{block}.output.dense': (8, 12),
    'embeddings.patch_embeddings.projection': (8, 3, 2, 2),
  }
  arrays = {
    'embeddings.cls_token': random(1, 1, 8),
    'embeddings.position_embeddings': random(1, 5, 8),
  }
  for name, shape in kernels.items():
    arrays |= {f'{name}.weight': random(*shape), f'{name}.bias': random(shape[0])}
  for name in ('layernorm', f'{block}.layernorm_before', f'{block}.layernorm_after'):
    arrays |= {f'{name}.weight': random(8), f'{name}.bias': random(8)}
  return arrays
