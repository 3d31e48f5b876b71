"""Reading T5X's checkpoints; tests/models/test_t5.py compares the model's outputs."""

import json
import pickle
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
from etils import epath
from flax import serialization

from rahf.errors import InputError
from rahf.pretrained import t5x as t5x_lib
from rahf.pretrained.t5x import OPTIMIZER_STATE, open_t5x

EMBEDDING = 't5/token_embedder/embedding'
POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n'


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
def test_settings_are_those_of_the_checkpoint(assets, name):
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
def test_arrays_are_found_next_to_a_moved_index(t5x, store):
  expected = read_all(open_t5x(t5x))

  def move(leaf):
    path = leaf['kvstore']['path']
    if 'decoder' in path:  # As written by T5X of 2021.
      return leaf | {'kvstore': store, 'path': path}
    return leaf | {'kvstore': store | {'path': f'/runs/checkpoint_7/{path}'}}

  change_index(t5x, move)
  assert_equal(read_all(open_t5x(t5x)), expected)


def test_arrays_may_be_in_the_index(t5x):
  expected = read_all(open_t5x(t5x))
  # Leaves are in the order of the tree, like paths.
  arrays = iter([expected[path].astype(jnp.bfloat16) for path in expected])
  change_index(t5x, lambda leaf: next(arrays))
  for folder in t5x.glob('target.*'):
    shutil.rmtree(folder)
  found = read_all(open_t5x(t5x))
  assert found[EMBEDDING].dtype == jnp.bfloat16
  assert_equal(found, {p: a.astype(jnp.bfloat16) for p, a in expected.items()})


def test_arrays_are_read_lazily(t5x):
  for chunk in t5x.glob('target.*/[0-9]*'):
    chunk.write_bytes(b'spoilt')
  source = open_t5x(t5x)
  assert source.weights[EMBEDDING].shape == (384, 24)
  assert source.weights[EMBEDDING].dtype == np.float32
  with pytest.raises(InputError, match='token_embedder/embedding cannot be read from'):
    source.weights[EMBEDDING].read()


@pytest.fixture
def in_a_bucket(monkeypatch):
  """Simulates a bucket, where only the index is read at first."""
  monkeypatch.setattr(t5x_lib, 'is_local', lambda path: False)


def test_arrays_in_a_bucket_are_opened_lazily(t5x, in_a_bucket):
  expected = read_all(open_t5x(t5x))
  hidden = t5x.rename(t5x.with_name('hidden'))
  t5x.mkdir()
  shutil.copy(hidden / 'checkpoint', t5x)
  source = open_t5x(t5x)
  shutil.rmtree(t5x)
  hidden.rename(t5x)
  assert_equal(read_all(source), expected)


CHUNKS = np.arange(5 * 7, dtype=np.float32).reshape(5, 7)


@pytest.fixture
def chunked(t5x):
  """A checkpoint with a parameter in 3 x 2 chunks, one of which is all zeros."""
  path = str(t5x / 'target.extra') + '/'
  stored = {'driver': 'zarr', 'kvstore': {'driver': 'file', 'path': path}}
  metadata = {'shape': [5, 7], 'chunks': [2, 4], 'compressor': {'id': 'gzip'}}
  leaf = stored | {'dtype': 'float32', 'metadata': metadata}
  CHUNKS[2:4, 4:] = 0
  tensorstore.open(leaf, create=True).result().write(CHUNKS).result()
  assert len(list((t5x / 'target.extra').iterdir())) == 1 + 6
  index = t5x / 'checkpoint'
  tree = serialization.msgpack_restore(index.read_bytes())
  tree['optimizer']['target']['extra'] = leaf | {
    'kvstore': {'driver': 'file', 'path': 'target.extra'}
  }
  index.write_bytes(serialization.msgpack_serialize(tree))
  return t5x


def test_arrays_in_many_chunks_are_read(chunked):
  np.testing.assert_array_equal(open_t5x(chunked).weights['t5/extra'].read(), CHUNKS)


@pytest.mark.parametrize('chunk', ['0.0', '1.1', '2.1'])
def test_a_missing_chunk_is_an_error(chunked, chunk):
  (chunked / 'target.extra' / chunk).unlink()
  message = (
    rf'target.extra/{chunk} is missing, which contains a part of .*target/extra; copy'
  )
  with pytest.raises(InputError, match=message):
    open_t5x(chunked)


@pytest.mark.parametrize('chunk', ['0.0', '1.1', '2.1'])
def test_a_missing_chunk_is_an_error_in_a_bucket(chunked, in_a_bucket, chunk):
  (chunked / 'target.extra' / chunk).unlink()
  weight = open_t5x(chunked).weights['t5/extra']
  message = (
    rf'target/extra cannot be read from .*target.extra/{chunk}" is missing; copy'
  )
  with pytest.raises(InputError, match=message):
    weight.read()


def test_a_chunk_that_disappears_is_an_error(chunked):
  weight = open_t5x(chunked).weights['t5/extra']
  (chunked / 'target.extra' / '1.0').unlink()
  with pytest.raises(
    InputError, match=r'target/extra cannot be read from .*1\.0" is mi'
  ):
    weight.read()


def test_chunks_may_be_in_folders(chunked):
  folder = chunked / 'target.extra'
  metadata = json.loads((folder / '.zarray').read_text())
  metadata['dimension_separator'] = '/'
  (folder / '.zarray').write_text(json.dumps(metadata))
  for chunk in list(folder.glob('[0-9]*')):
    row, column = chunk.name.split('.')
    (folder / f'{row}_').mkdir(exist_ok=True)
    chunk.rename(folder / f'{row}_' / column)
  for row in folder.glob('?_'):
    row.rename(folder / row.name[0])
  np.testing.assert_array_equal(open_t5x(chunked).weights['t5/extra'].read(), CHUNKS)


@pytest.mark.parametrize(
  ('spoil', 'message'),
  [
    (lambda data: data[: len(data) // 2], 'cannot be read'),
    (lambda data: data[:-6] + bytes([data[-6] ^ 1]) + data[-5:], 'cannot be read'),
    (lambda data: b'', 'cannot be read'),
    (lambda data: POINTER, r'target\.extra/2\.0 is a Git LFS pointer, not the data'),
  ],
)
def test_a_damaged_chunk_is_an_error(chunked, spoil, message):
  chunk = chunked / 'target.extra' / '2.0'
  chunk.write_bytes(spoil(chunk.read_bytes()))
  weight = open_t5x(chunked).weights['t5/extra']
  with pytest.raises(InputError, match=message):
    weight.read()


def test_a_missing_only_chunk_is_an_error(t5x):
  (t5x / 'target.encoder.encoder_norm.scale' / '0').unlink()
  with pytest.raises(
    InputError, match=r'scale/0 is missing, which contains all of .*/enc'
  ):
    open_t5x(t5x)


def test_missing_metadata_is_an_error(chunked):
  (chunked / 'target.extra' / '.zarray').unlink()
  with pytest.raises(InputError, match=r'cannot be read .*\.zarray" does not exist'):
    open_t5x(chunked)
  shutil.rmtree(chunked / 'target.extra')
  with pytest.raises(InputError, match=r'extra cannot be read .* does not exist; copy'):
    open_t5x(chunked)


@pytest.mark.parametrize('name', ['checkpoint', 'target.extra/.zarray'])
def test_pointers_are_named(chunked, name):
  (chunked / name).write_bytes(POINTER)
  with pytest.raises(InputError, match=f'{name} is a Git LFS pointer, not the data'):
    open_t5x(chunked)


def test_a_truncated_array_is_an_error(t5x):
  (chunk,) = t5x.glob('target.encoder.encoder_norm.scale/0')
  chunk.write_bytes(chunk.read_bytes()[:-9])
  weight = open_t5x(t5x).weights['t5/encoder/encoder_norm/scale']
  with pytest.raises(InputError, match=r'encoder_norm/scale cannot be read from .*Not'):
    weight.read()


def change_embedding(folder, **changes) -> None:
  """Changes the index entry of one array."""
  found = 'target.token_embedder.embedding'

  def change(leaf):
    return leaf | changes if leaf['kvstore']['path'].strip('/') == found else leaf

  change_index(folder, change)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'metadata': {'shape': [385, 24], 'chunks': [385, 24]}},
      r'embedding is \[384, 24\].* says \[385, 24\]',
    ),
    ({'dtype': 'bfloat16'}, r'embedding is .* of float32, .* says .* of bfloat16'),
    ({'dtype': 'int32'}, r'embedding is .* of float32, .* says .* of int32'),
  ],
)
def test_an_array_that_differs_from_the_index_is_an_error(
  t5x, monkeypatch, changes, message
):
  change_embedding(t5x, **changes)
  with pytest.raises(InputError, match=message):
    open_t5x(t5x)
  monkeypatch.setattr(t5x_lib, 'is_local', lambda path: False)
  weight = open_t5x(t5x).weights[EMBEDDING]
  with pytest.raises(InputError, match=message):
    weight.read()


@pytest.mark.parametrize(
  'changes',
  [
    {'dtype': 'float33'},
    {'metadata': {'chunks': [1]}},
    {'metadata': 'x'},
    {'kvstore': 'file:///x'},
    {'path': 3},
  ],
)
def test_an_invalid_description_of_an_array_is_an_error(t5x, changes):
  change_embedding(t5x, **changes)
  with pytest.raises(InputError, match=r'embedding is not described as in T5X'):
    open_t5x(t5x)


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


def test_missing_parts_are_named(t5x):
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
