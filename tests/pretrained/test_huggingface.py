"""What is read of Hugging Face directories and what is refused.

tests/pretrained/test_parity.py compares with what transformers makes of them.
"""

import json
import pathlib
import pickle
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from rahf.errors import InputError
from rahf.pretrained.embedding import EMBEDDING, LOGITS
from rahf.pretrained.huggingface import open_huggingface

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


@pytest.fixture
def folder(tmp_path):
  return tmp_path / 'model'


def test_kernels_are_turned_round(folder):
  arrays = t5_arrays()
  source = open_huggingface(write(folder, T5, arrays))
  assert len(source.weights) == len(arrays)
  out = 'decoder.block.0.layer.1.EncDecAttention.o.weight'
  ours = 't5/decoder/layers_0/encoder_decoder_attention/out/kernel'
  assert source.weights[ours].shape == (6, 8)
  np.testing.assert_array_equal(source.weights[ours].read(), arrays[out].T)
  bias = source.weights['t5/encoder/relpos_bias/rel_embedding']
  assert bias.shape == bias.read().shape == (3, 32)
  assert source.settings['t5.tied_logits'] is True
  assert source.settings['t5.decoder_layers'] == 1


def test_aliases_of_the_embedding_must_agree(folder):
  arrays = t5_arrays()
  same = arrays['shared.weight']
  arrays |= {
    'lm_head.weight': same.copy(),
    'encoder.embed_tokens.weight': same.copy(),
    'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight': same,
  }
  source = open_huggingface(write(folder, T5, arrays))
  assert len(source.ignored) == 3
  np.testing.assert_array_equal(source.weights[EMBEDDING].read(), same)
  arrays['lm_head.weight'] = same + 1
  source = open_huggingface(write(folder, T5, arrays))
  with pytest.raises(InputError, match=r'lm_head.weight should be the same as shared'):
    source.weights[EMBEDDING].read()


@pytest.mark.parametrize(
  'fields',
  [
    {'tie_word_embeddings': False},
    {'tie_word_embeddings': True, 'scale_decoder_outputs': False},
  ],
)
def test_logits_that_are_not_scaled_have_a_kernel(folder, fields):
  arrays = t5_arrays()
  source = open_huggingface(write(folder, T5 | fields, arrays))
  assert source.settings['t5.tied_logits'] is False
  np.testing.assert_array_equal(
    source.weights[LOGITS].read(), arrays['shared.weight'].T
  )
  arrays['lm_head.weight'] = random(20, 8)
  source = open_huggingface(write(folder, T5 | fields, arrays))
  np.testing.assert_array_equal(
    source.weights[LOGITS].read(), arrays['lm_head.weight'].T
  )


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_half_precision(folder, dtype):
  arrays = {name: a.astype(jnp.dtype(dtype)) for name, a in t5_arrays().items()}
  weight = open_huggingface(write(folder, T5, arrays)).weights[EMBEDDING]
  assert weight.dtype == weight.read().dtype == jnp.dtype(dtype)
  np.testing.assert_array_equal(weight.read(), arrays['shared.weight'])


def test_files_in_parts(folder):
  arrays = t5_arrays()
  write(folder, T5)
  parts = {'a.safetensors': list(arrays)[::2], 'b.safetensors': list(arrays)[1::2]}
  for file, names in parts.items():
    save_file({name: arrays[name] for name in names}, folder / file)
  places = {name: file for file, names in parts.items() for name in names}

  def index(changes: dict) -> None:
    text = json.dumps({'weight_map': places | changes})
    (folder / 'model.safetensors.index.json').write_text(text)

  index({})
  weights = open_huggingface(folder).weights
  assert len(weights) == len(arrays)
  np.testing.assert_array_equal(weights[EMBEDDING].read(), arrays['shared.weight'])
  for changes, message in (
    ({'shared.weight': 'b.safetensors'}, 'differ in shared.weight'),
    ({'shared.weight': 'c.safetensors'}, 'c.safetensors, which is missing'),
    ({'shared.weight': '../c.safetensors'}, r"refers to '\.\./c\.safetensors'"),
  ):
    index(changes)
    with pytest.raises(InputError, match=message):
      open_huggingface(folder)
  for text in ('{}', '{"weight_map": {"shared.weight": 1}}'):
    (folder / 'model.safetensors.index.json').write_text(text)
    with pytest.raises(InputError, match=r'index.json has no weight_map from names'):
      open_huggingface(folder)


@pytest.mark.parametrize(
  ('config', 'message'),
  [
    (T5 | {'model_type': 'umt5'}, "model_type is 'umt5'; vit and t5 can be read"),
    (T5 | {'feed_forward_proj': 'gated-silu'}, "'gated-silu' is none of relu, gated"),
    (T5 | {'relative_attention_num_buckets': 64}, 'num_buckets is 64; only 32'),
    (T5 | {'relative_attention_max_distance': 64}, 'max_distance is 64; only 128'),
    (T5 | {'layer_norm_epsilon': 1e-5}, r'epsilon is 1e-05; only 1e-06'),
    ({k: v for k, v in T5.items() if k != 'd_kv'}, "config.json has no 'd_kv'"),
    (VIT | {'hidden_act': 'silu'}, "hidden_act 'silu' is none of gelu"),
    (VIT | {'qkv_bias': False}, 'qkv_bias is False; only True'),
    (VIT | {'num_channels': 1}, 'num_channels is 1; only 3'),
    (VIT, r'SelfAttention.k.weight \[6, 8\] has no place in the model'),
  ],
)
def test_other_models_are_refused(folder, config, message):
  with pytest.raises(InputError, match=message):
    open_huggingface(write(folder, config, t5_arrays()))


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (b'{"model_type": "t5",', r'config.json is not JSON: Expecting'),
    (b'{"model_type": "\xff"}', r"config.json is not JSON: 'utf-8' codec"),
    (b'[]', r'config.json holds list, not named fields'),
  ],
)
def test_a_damaged_config_is_an_error(folder, text, message):
  write(folder, T5, t5_arrays())
  (folder / 'config.json').write_bytes(text)
  with pytest.raises(InputError, match=message):
    open_huggingface(folder)


def test_a_kernel_that_cannot_be_split_into_heads_is_an_error(folder):
  query = 'encoder.layer.0.attention.attention.query.weight'
  write(folder, VIT, {query: random(7, 8)})
  with pytest.raises(InputError, match=rf'{query} \[7, 8\]: cannot reshape'):
    open_huggingface(folder)


def test_directories_without_weights_are_refused(folder):
  write(folder, T5)
  with pytest.raises(InputError, match=r'has neither model.safetensors nor'):
    open_huggingface(folder)
  (folder / 'model.safetensors').write_bytes(b'anything')
  with pytest.raises(InputError, match=r'is not a safetensors file'):
    open_huggingface(folder)


def test_a_pickle_with_a_payload_is_refused_and_not_run(folder, payload):
  write(folder, T5)
  with zipfile.ZipFile(folder / 'pytorch_model.bin', 'w') as archive:
    archive.writestr('archive/data.pkl', pickle.dumps({'shared.weight': payload}))
  with pytest.raises(InputError, match=r'pytorch_model.bin refers to .*open'):
    open_huggingface(folder)
