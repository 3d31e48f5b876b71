"""Reading ViT releases; tests/models/test_vit.py compares the model's outputs."""

import jax.numpy as jnp
import numpy as np
import pytest

from rahf.errors import InputError
from rahf.pretrained.vit_npz import open_vit_npz


@pytest.fixture
def arrays(assets) -> dict[str, np.ndarray]:
  with np.load(assets / 'golden' / 'vit_tiny_release_names.npz') as file:
    return dict(file)


def test_both_naming_schemes_are_equivalent(assets):
  one, other = (
    open_vit_npz(assets / 'golden' / f'vit_tiny_{spelling}_names.npz')
    for spelling in ('release', 'linen')
  )
  assert (
    one.settings
    == other.settings
    == {
      'vit.patch': 8,
      'vit.width': 24,
      'vit.layers': 2,
      'vit.heads': 3,
      'vit.mlp': 40,
      'vit.class_token': True,
      'vit.norm_epsilon': 1e-6,
      'vit.gelu': 'tanh',
    }
  )
  assert one.weights.keys() == other.weights.keys()
  for path, weight in one.weights.items():
    array = weight.read()
    assert (array.shape, array.dtype) == (weight.shape, weight.dtype)
    np.testing.assert_array_equal(array, other.weights[path].read(), err_msg=path)


def test_classifiers_are_ignored_and_may_be_missing(arrays, tmp_path):
  file = tmp_path / 'in21k.npz'
  extra = {'pre_logits/kernel': np.ones((24, 24)), 'pre_logits/bias': np.ones(24)}
  np.savez(file, **arrays | extra)
  assert {name.split('/')[0] for name in open_vit_npz(file).ignored} == {
    'head',
    'pre_logits',
  }
  np.savez(file, **{k: v for k, v in arrays.items() if not k.startswith('head')})
  assert open_vit_npz(file).ignored == {}


def test_bfloat16_is_understood(arrays, tmp_path):
  file = tmp_path / 'bfloat16.npz'
  np.savez(file, **{k: v.astype(jnp.bfloat16) for k, v in arrays.items()})
  weight = open_vit_npz(file).weights['vit/embedding/kernel']
  assert weight.dtype == jnp.bfloat16
  expected = arrays['embedding/kernel'].astype(jnp.bfloat16)
  np.testing.assert_array_equal(weight.read(), expected)


def test_a_pickle_is_refused_and_not_run(arrays, payload, tmp_path):
  file = tmp_path / 'evil.npz'
  np.savez(file, **arrays | {'cls': np.array(payload, object)})
  with pytest.raises(InputError, match='cls is a pickle, which could run any code'):
    open_vit_npz(file)


def test_a_damaged_file_is_an_error(arrays, tmp_path):
  file = tmp_path / 'vit.npz'
  np.savez(file, **arrays)
  content = bytearray(file.read_bytes())
  content[content.index(b'\x93NUMPY') + 200] ^= 1  # In the first array's values.
  file.write_bytes(content)
  with pytest.raises(InputError, match=r'vit.npz is damaged: Bad CRC-32 .*again'):
    [weight.read() for weight in open_vit_npz(file).weights.values()]


def test_unknown_arrays_are_errors(arrays, tmp_path):
  file = tmp_path / 'hybrid.npz'
  np.savez(file, **arrays, **{'conv_root/kernel': np.ones((7, 7, 3, 64))})
  with pytest.raises(
    ValueError, match=r'conv_root/kernel \[7, 7, 3, 64\] has no place'
  ):
    open_vit_npz(file)
  arrays.pop('embedding/kernel')
  np.savez(file, **arrays)
  with pytest.raises(InputError, match="has no 'vit/embedding/kernel'"):
    open_vit_npz(file)


def test_one_parameter_under_both_names_is_an_error(arrays, tmp_path):
  newer = 'Transformer/encoderblock_0/LayerNorm_1/scale'
  older = newer.replace('_1/scale', '_2/scale')
  file = tmp_path / 'both.npz'
  np.savez(file, **arrays | {name: np.ones(24) for name in (older, newer)})
  with pytest.raises(
    InputError, match=rf'both {older} and {newer}, which are the same'
  ):
    open_vit_npz(file)
