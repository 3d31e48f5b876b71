"""Writes a CLIP as a Hugging Face directory, which transformers can load."""

import json
from typing import Any

import numpy as np
from etils import epath

from rahf.fileio import safetensors_file
from rahf.models.clip import CLIPConfig, TowerConfig
from rahf.pretrained.clip import GELUS

# In config.json: that we have written the directory, and may replace it.
MARK = {'exported_by': 'rahf'}
ATTENTION = 'MultiHeadDotProductAttention_0'


def write_huggingface(folder: epath.Path, config: CLIPConfig, params: Any) -> None:
  """Writes config.json and model.safetensors.

  Args:
    folder: exists; the tokenizer is written by `clip_tokenizer.write_vocabulary`.
    params: nested NumPy arrays of a `models.clip.CLIP`.
  """
  arrays, path = to_huggingface(params), folder / 'model.safetensors'
  safetensors_file.write(path, arrays, {'format': 'pt'})
  text = json.dumps(describe(config) | MARK, indent=2, sort_keys=True) + '\n'
  (folder / 'config.json').write_text(text)


def describe(config: CLIPConfig) -> dict[str, Any]:
  """Returns the fields of config.json."""
  vision, text = _tower_fields(config.vision), _tower_fields(config.text)
  vision |= {'image_size': config.image_size, 'patch_size': config.patch}
  text |= {
    'vocab_size': config.vocab_size,
    'max_position_embeddings': config.text_length,
    'bos_token_id': config.vocab_size - 2,
    'eos_token_id': config.vocab_size - 1,
    'pad_token_id': config.vocab_size - 1,
  }
  towers = {'vision_config': vision, 'text_config': text}
  for tower in towers.values():
    tower['projection_dim'] = config.projection
  return {
    'model_type': 'clip',
    'architectures': ['CLIPModel'],
    'projection_dim': config.projection,
    'dtype': 'float32',
    **towers,
  }


def _tower_fields(tower: TowerConfig) -> dict[str, Any]:
  activation = next(theirs for theirs, ours in GELUS.items() if ours == tower.gelu)
  return {
    'hidden_size': tower.width,
    'num_hidden_layers': tower.layers,
    'num_attention_heads': tower.heads,
    'intermediate_size': tower.mlp,
    'hidden_act': activation,
    'layer_norm_eps': tower.norm_epsilon,
  }


def to_huggingface(params: Any) -> dict[str, np.ndarray]:
  """Returns a CLIP's arrays in the names and layouts of transformers."""
  vision, text = params['vision'], params['text']
  arrays = {
    'logit_scale': params['logit_scale'],
    'vision_model.embeddings.class_embedding': vision['cls'],
    'vision_model.embeddings.patch_embedding.weight': vision['embedding'][
      'kernel'
    ].transpose(3, 2, 0, 1),
    'vision_model.embeddings.position_embedding.weight': vision['positions'],
    'text_model.embeddings.token_embedding.weight': text['embedding'],
    'text_model.embeddings.position_embedding.weight': text['positions'],
    'visual_projection.weight': vision['projection']['kernel'].T,
    'text_projection.weight': text['projection']['kernel'].T,
    **_norm('vision_model.pre_layrnorm', vision['pre_norm']),
    **_norm('vision_model.post_layernorm', vision['post_norm']),
    **_norm('text_model.final_layer_norm', text['final_norm']),
    **_blocks('vision_model.encoder.layers', vision),
    **_blocks('text_model.encoder.layers', text),
  }
  return {name: np.asarray(array, order='C') for name, array in arrays.items()}


def _blocks(prefix: str, tower: Any) -> dict[str, np.ndarray]:
  arrays = {}
  for name, block in tower.items():
    if not name.startswith('block_'):
      continue
    there = f'{prefix}.{name.removeprefix("block_")}'
    arrays |= _norm(f'{there}.layer_norm1', block['LayerNorm_0'])
    arrays |= _norm(f'{there}.layer_norm2', block['LayerNorm_1'])
    for ours, theirs in (('query', 'q'), ('key', 'k'), ('value', 'v')):
      layer = block[ATTENTION][ours]
      width = layer['kernel'].shape[0]
      arrays |= _dense(
        f'{there}.self_attn.{theirs}_proj',
        layer['kernel'].reshape(width, -1),
        layer['bias'].reshape(-1),
      )
    out = block[ATTENTION]['out']
    kernel = out['kernel'].reshape(-1, out['kernel'].shape[-1])
    arrays |= _dense(f'{there}.self_attn.out_proj', kernel, out['bias'])
    for ours, theirs in (('Dense_0', 'fc1'), ('Dense_1', 'fc2')):
      layer = block['MlpBlock_0'][ours]
      arrays |= _dense(f'{there}.mlp.{theirs}', layer['kernel'], layer['bias'])
  return arrays


def _dense(name: str, kernel: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
  return {f'{name}.weight': kernel.T, f'{name}.bias': bias}


def _norm(name: str, norm: Any) -> dict[str, np.ndarray]:
  return {f'{name}.weight': norm['scale'], f'{name}.bias': norm['bias']}
