"""Reading T5X's checkpoints; tests/models/test_t5.py compares what the model makes."""

import json
import pickle
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import serialization

from rahf.errors import InputError
from rahf.pretrained import t5x as t5x_lib
from rahf.pretrained.t5x import OPTIMIZER_STATE, open_t5x

EMBEDDING = 't5/token_embedder/embedding'


def change_index(folder, change) -> None:
  """Applies a function to every leaf of the parameters in the index."""
  index = folder / 'checkpoint'
  tree = serialization.msgpack_restore(index.read_bytes())

  def walk(node):
    if isinstance(node, dict) and 'kvstore' not in node:
      return {name: walk(child) for name, child in node.items()}
    return change(node)

  tree['optimizer']['target'] = walk(tree['optimizer']['target'])
  index.write_bytes(serialization.msgpack_serialize(tree))


def read_all(source) -> dict[str, np.ndarray]:
  return {path: weight.read() for path, weight in source.weights.items()}


def assert_equal(found, expected) -> None:
  assert found.keys() == expected.keys()
  for path, array in expected.items():
    np.testing.assert_array_equal(found[path], array, err_msg=path)


@pytest.mark.parametrize('name', ['t5x_v1_1', 't5x_v1_0'])
def test_settings_are_those_it_was_made_with(assets, name):
  folder = assets / 'golden' / name
  fields = json.loads((folder / 'config.json').read_text())
  source = open_t5x(folder / 'checkpoint_0')
  assert source.settings == {
    't5.vocab_size': fields['vocab_size'],
    't5.width': fields['emb_dim'],
    't5.heads': fields['num_heads'],
    't5.head_dim': fields['head_dim'],
    't5.mlp': fields['mlp_dim'],
    't5.encoder_layers': fields['num_encoder_layers'],
    't5.decoder_layers': fields['num_decoder_layers'],
    't5.activations': tuple(fields['mlp_activations']),
    't5.tied_logits': fields['logits_via_embedding'],
  }


def test_the_optimizer_state_is_never_read(t5x):
  expected = read_all(open_t5x(t5x))
  states = sorted(t5x.glob('state.*'))
  assert states
  for folder in states[::2]:
    shutil.rmtree(folder)
  for folder in states[1::2]:
    for file in folder.iterdir():
      file.write_bytes(b'spoilt')
  source = open_t5x(t5x)
  assert_equal(read_all(source), expected)
  assert set(source.ignored.values()) == {OPTIMIZER_STATE}
  assert all(name.startswith('optimizer/state/') for name in source.ignored)


@pytest.mark.parametrize(
  'store', [{'driver': 'gfile'}, {'driver': 'gcs', 'bucket': 'elsewhere'}]
)
def test_arrays_are_found_beside_the_index_wherever_it_was_written(t5x, store):
  expected = read_all(open_t5x(t5x))

  def move(leaf):
    path = leaf['kvstore']['path']
    if 'decoder' in path:  # As T5X of 2021 wrote it.
      return leaf | {'kvstore': store, 'path': path}
    return leaf | {'kvstore': store | {'path': f'/runs/checkpoint_7/{path}'}}

  change_index(t5x, move)
  assert_equal(read_all(open_t5x(t5x)), expected)


def test_arrays_may_lie_in_the_index(t5x):
  expected = read_all(open_t5x(t5x))
  # Leaves come in the order of the tree, as paths do.
  arrays = iter([expected[path].astype(jnp.bfloat16) for path in expected])
  change_index(t5x, lambda leaf: next(arrays))
  for folder in t5x.glob('target.*'):
    shutil.rmtree(folder)
  found = read_all(open_t5x(t5x))
  assert found[EMBEDDING].dtype == jnp.bfloat16
  assert_equal(found, {p: a.astype(jnp.bfloat16) for p, a in expected.items()})


def test_nothing_is_read_before_it_is_asked_for(t5x):
  for folder in t5x.glob('target.*'):
    shutil.rmtree(folder)
  source = open_t5x(t5x)
  assert source.weights[EMBEDDING].shape == (384, 24)
  assert source.weights[EMBEDDING].dtype == np.float32
  with pytest.raises(InputError, match='token_embedder/embedding cannot be read from'):
    source.weights[EMBEDDING].read()


def test_a_truncated_array_is_an_error(t5x):
  (chunk,) = t5x.glob('target.encoder.encoder_norm.scale/0')
  chunk.write_bytes(chunk.read_bytes()[:-9])
  weight = open_t5x(t5x).weights['t5/encoder/encoder_norm/scale']
  with pytest.raises(InputError, match=r'encoder_norm/scale cannot be read from .*Not'):
    weight.read()


def test_an_array_of_another_shape_than_the_index_says_is_an_error(t5x):
  def grow(leaf):
    shape = leaf['metadata']['shape']
    return leaf | {'metadata': leaf['metadata'] | {'shape': [shape[0] + 1, *shape[1:]]}}

  change_index(t5x, grow)
  with pytest.raises(InputError, match=r'embedding is \[384, 24\].* says \[385, 24\]'):
    open_t5x(t5x).weights[EMBEDDING].read()


def test_the_only_checkpoint_of_a_directory_is_found(t5x):
  assert open_t5x(t5x.parent).path == str(t5x)
  shutil.copytree(t5x, t5x.parent / 'checkpoint_1000')
  with pytest.raises(InputError, match=r'several.*: checkpoint_0, checkpoint_1000'):
    open_t5x(t5x.parent)
  shutil.rmtree(t5x)
  shutil.rmtree(t5x.parent / 'checkpoint_1000')
  with pytest.raises(InputError, match='no file `checkpoint`'):
    open_t5x(t5x.parent)


@pytest.mark.parametrize(
  'leaf',
  [
    'PLACEHOLDER://target',
    {'driver': 'json', 'kvstore': {'driver': 'file', 'path': 'x'}},
    {'driver': 'zarr', 'kvstore': {'driver': 'file', 'path': '../'}},
  ],
)
def test_an_index_that_refers_to_something_else_is_refused(t5x, leaf):
  change_index(t5x, lambda _: leaf)
  with pytest.raises(InputError, match='decoder/decoder_norm/scale'):
    open_t5x(t5x)


def test_a_pickle_in_place_of_the_index_is_not_run(t5x, payload):
  (t5x / 'checkpoint').write_bytes(pickle.dumps(payload))
  with pytest.raises(InputError, match='is not the index of a T5X checkpoint'):
    open_t5x(t5x)


def test_parts_that_are_missing_are_named(t5x):
  index = t5x / 'checkpoint'
  tree = serialization.msgpack_restore(index.read_bytes())
  tree['optimizer']['target']['encoder'].pop('relpos_bias')
  index.write_bytes(serialization.msgpack_serialize(tree))
  with pytest.raises(InputError, match=r'encoder/relpos_bias/rel_embedding.* missing'):
    open_t5x(t5x)


def test_buckets_are_read_by_tensorstore():
  folder = epath.Path('gs://t5-data') / 'checkpoint_7' / 'target.x'
  assert t5x_lib._store(folder) == {
    'driver': 'gcs',
    'bucket': 't5-data',
    'path': 'checkpoint_7/target.x/',
  }
