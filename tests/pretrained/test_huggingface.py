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


ENCODER, DECODER = (f'{side}.embed_tokens.weight' for side in ('encoder', 'decoder'))


@pytest.mark.parametrize('tied', [True, False])
@pytest.mark.parametrize('prefix', ['', 'model.'])
@pytest.mark.parametrize('names', ['e', 'd', 'h', 'ed', 'edh', 'sedh'])
def test_the_embedding_is_found_under_any_of_its_names(folder, names, prefix, tied):
  arrays = t5_arrays()
  embedding, head = arrays.pop('shared.weight'), random(20, 8)
  written = [
    {'s': 'shared.weight', 'e': ENCODER, 'd': DECODER, 'h': 'lm_head.weight'}[letter]
    for letter in names
  ]
  # Without any other, and where it is tied, the head is the embedding.
  same = tied or names == 'h'
  arrays |= {
    prefix + name: embedding.copy() if same or name != 'lm_head.weight' else head
    for name in written
  }
  source = open_huggingface(write(folder, T5 | {'tie_word_embeddings': tied}, arrays))
  weight = source.weights[EMBEDDING]
  assert weight.name == prefix + written[0]
  np.testing.assert_array_equal(weight.read(), embedding)
  assert (LOGITS in source.weights) != tied
  if not tied:
    logits = source.weights[LOGITS]
    expected = head if 'h' in names and names != 'h' else embedding
    assert logits.shape == (8, 20)
    np.testing.assert_array_equal(logits.read(), expected.T)
  used = {weight.name for weight in source.weights.values()}
  assert used.isdisjoint(source.ignored)
  assert used | source.ignored.keys() == arrays.keys()


@pytest.mark.parametrize('tied', [True, False])
@pytest.mark.parametrize(
  ('first', 'other'),
  [('shared.weight', ENCODER), ('shared.weight', DECODER), (ENCODER, DECODER)],
)
def test_embeddings_that_differ_are_an_error(folder, first, other, tied):
  arrays = t5_arrays()
  embedding = arrays.pop('shared.weight')
  arrays |= {first: embedding, other: embedding + 1}
  source = open_huggingface(write(folder, T5 | {'tie_word_embeddings': tied}, arrays))
  with pytest.raises(InputError, match=rf'{other} should be the same as {first}, but'):
    source.weights[EMBEDDING].read()


def test_one_parameter_under_two_names_is_an_error(folder):
  arrays = t5_arrays()
  norm = 'encoder.final_layer_norm.weight'
  arrays[f'model.{norm}'] = arrays[norm] + 1
  with pytest.raises(InputError, match=rf'holds both {norm} and model.{norm}, which'):
    open_huggingface(write(folder, T5, arrays))


def test_an_encoder_alone_is_refused(folder):
  arrays = {n: a for n, a in t5_arrays().items() if not n.startswith('decoder')}
  with pytest.raises(InputError, match=r'an encoder alone.* T5ForConditionalGenerat'):
    open_huggingface(write(folder, T5, arrays))


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


@pytest.mark.parametrize(
  'fields', [{}, {'patch_size': [2, 2]}, {'image_size': [4, 4], 'patch_size': [2, 2]}]
)
def test_squares_may_be_given_as_height_and_width(folder, fields):
  source = open_huggingface(write(folder, VIT | fields, vit_arrays()))
  assert source.settings == {
    'vit.patch': 2,
    'vit.width': 8,
    'vit.layers': 1,
    'vit.heads': 2,
    'vit.mlp': 12,
    'vit.class_token': True,
    'vit.norm_epsilon': 1e-12,
    'vit.gelu': 'exact',
  }


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'image_size': [2, 8]}, r'image_size is \[2, 8\]; only squares can be read'),
    ({'image_size': 8}, r'image_size 8 and patch_size 2 make 17 tokens, .* of 5'),
    ({'image_size': None}, r'image_size 224 and patch_size 2 make 12545 tokens'),
    ({'patch_size': 4}, r'patch_size is 4, but the weights have 2'),
    ({'patch_size': None}, r'patch_size is 16, but the weights have 2'),
    ({'hidden_size': 16}, r'hidden_size is 16, but the weights have 8'),
    ({'num_hidden_layers': None}, r'num_hidden_layers is 12 by default, but .* have 1'),
    ({'intermediate_size': None}, r'intermediate_size is 3072 by default, but'),
    ({'num_attention_heads': 0}, r'num_attention_heads is 0, but should be a whole'),
  ],
)
def test_a_config_of_other_sizes_is_an_error(folder, fields, message):
  with pytest.raises(InputError, match=message):
    open_huggingface(write(folder, VIT | fields, vit_arrays()))


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
    (T5 | {'model_type': 'umt5'}, "model_type is 'umt5'; only vit and t5 can be read"),
    (
      T5 | {'model_type': ['t5']},
      r"model_type is \['t5'\]; only vit and t5 can be read",
    ),
    (T5 | {'model_type': None}, r'config.json: there is no model_type, .* --workdir'),
    (
      T5 | {'feed_forward_proj': 'gated-silu'},
      "feed_forward_proj is 'gated-silu'; only relu and gated-gelu can be read",
    ),
    (
      T5 | {'feed_forward_proj': 'gated-gelu'},
      r"is 'gated-gelu', but the weights have",
    ),
    (T5 | {'dense_act_fn': 'silu'}, "dense_act_fn is 'silu'; only 'relu' can be read"),
    (T5 | {'is_gated_act': True}, 'is_gated_act is True; only False can be read'),
    (T5 | {'tie_word_embeddings': 'no'}, "is 'no', but should be true or false"),
    (T5 | {'num_layers': 2}, 'num_layers is 2, but the weights have 1; use the config'),
    (T5 | {'num_decoder_layers': 2}, 'num_decoder_layers is 2, but the weights have 1'),
    (T5 | {'d_ff': '12'}, "d_ff is '12', but should be a whole number from 1"),
    (T5 | {'num_heads': True}, 'num_heads is True, but should be a whole number'),
    (T5 | {'relative_attention_num_buckets': 64}, 'num_buckets is 64; only 32'),
    (T5 | {'relative_attention_max_distance': 64}, 'max_distance is 64; only 128'),
    (T5 | {'layer_norm_epsilon': 1e-5}, r'epsilon is 1e-05; only 1e-06'),
    (
      {k: v for k, v in T5.items() if k != 'd_kv'},
      'config.json: d_kv is 64 by default, but the weights have 2',
    ),
    (T5 | {'d_kv': None}, 'd_kv is 64 by default, but the weights have 2'),
    (VIT | {'hidden_act': 'silu'}, "hidden_act is 'silu'; only gelu and gelu_new and"),
    (VIT | {'patch_size': [2, 4]}, r'patch_size is \[2, 4\]; only squares can be read'),
    (VIT | {'patch_size': [2, 2, 2]}, 'patch_size is .* one or two whole numbers'),
    (VIT | {'patch_size': '2'}, "patch_size is '2', but should be one or two whole"),
    (VIT | {'layer_norm_eps': '1e-6'}, "layer_norm_eps is '1e-6', but should be a num"),
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
    (POINTER, r'config.json is a Git LFS pointer, not the data: run `git lfs pull`'),
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


@pytest.mark.parametrize(
  'name', ['model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin']
)
def test_pointers_are_named(folder, name):
  write(folder, T5)
  (folder / name).write_bytes(POINTER)
  with pytest.raises(InputError, match=f'{name} is a Git LFS pointer, not the data'):
    open_huggingface(folder)


def test_a_part_that_is_a_pointer_is_named(folder):
  write(folder, T5)
  places = {'weight_map': {'shared.weight': 'a.safetensors'}}
  (folder / 'model.safetensors.index.json').write_text(json.dumps(places))
  (folder / 'a.safetensors').write_bytes(POINTER)
  with pytest.raises(InputError, match=r'a\.safetensors is a Git LFS pointer'):
    open_huggingface(folder)


def test_other_types_are_refused_by_name(folder):
  write(folder, T5, t5_arrays() | {'shared.weight': np.ones((20, 8), np.int8)})
  with pytest.raises(InputError, match=r'shared.weight is of type I8; only F64, F32'):
    open_huggingface(folder)


def test_a_pickle_with_a_payload_is_refused_and_not_run(folder, payload):
  write(folder, T5)
  with zipfile.ZipFile(folder / 'pytorch_model.bin', 'w') as archive:
    archive.writestr('archive/data.pkl', pickle.dumps({'shared.weight': payload}))
  with pytest.raises(InputError, match=r'pytorch_model.bin refers to .*open'):
    open_huggingface(folder)
