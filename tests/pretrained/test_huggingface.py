"""Reading Hugging Face directories.

tests/pretrained/test_parity.py compares with what transformers makes of them.
"""

import json
import pickle
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from hf_files import POINTER, T5, VIT, random, t5_arrays, write
from rahf.errors import InputError
from rahf.pretrained.embedding import EMBEDDING
from rahf.pretrained.huggingface import open_huggingface


@pytest.fixture
def folder(tmp_path):
  return tmp_path / 'model'


def test_kernels_are_transposed(folder):
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


def test_one_parameter_under_two_names_is_an_error(folder):
  arrays = t5_arrays()
  norm = 'encoder.final_layer_norm.weight'
  arrays[f'model.{norm}'] = arrays[norm] + 1
  with pytest.raises(
    InputError, match=rf'contains both {norm} and model.{norm}, which'
  ):
    open_huggingface(write(folder, T5, arrays))


def test_an_encoder_without_decoder_is_refused(folder):
  arrays = {n: a for n, a in t5_arrays().items() if not n.startswith('decoder')}
  with pytest.raises(InputError, match=r'an encoder only.* T5ForConditionalGenerat'):
    open_huggingface(write(folder, T5, arrays))


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_half_precision(folder, dtype):
  arrays = {name: a.astype(jnp.dtype(dtype)) for name, a in t5_arrays().items()}
  weight = open_huggingface(write(folder, T5, arrays)).weights[EMBEDDING]
  assert weight.dtype == weight.read().dtype == jnp.dtype(dtype)
  np.testing.assert_array_equal(weight.read(), arrays['shared.weight'])


def test_sharded_files(folder):
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


def test_a_shard_that_is_a_pointer_is_named(folder):
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
