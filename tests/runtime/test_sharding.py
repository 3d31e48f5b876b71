"""The mesh, and sharding of batches and parameters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec

from rahf.errors import InputError
from rahf.models.init import init_variables
from rahf.models.layers import partitioned
from rahf.models.rahf import RAHF
from rahf.runtime import sharding
from rahf.runtime.sharding import (
  check_batch_size,
  make_mesh,
  parameter_shardings,
  process_rows,
  put_batch,
)
from rahf.training.state import StateFactory
from tiny_model import make_batch, tiny


def sizes(data: int, fsdp: int = 1, tensor: int = 1) -> dict[str, int]:
  return dict(data=data, fsdp=fsdp, tensor=tensor)


def test_one_size_may_be_left_open():
  assert len(jax.devices()) == 8
  assert dict(make_mesh(sizes(-1, 2, 2)).shape) == sizes(2, 2, 2)
  assert dict(make_mesh(sizes(2, 1, -1)).shape) == sizes(2, 1, 4)
  assert dict(make_mesh(sizes(-1), jax.devices()[:3]).shape) == sizes(3)


@pytest.mark.parametrize(
  ('mesh', 'message'),
  [
    (sizes(2, 2, 1), 'data=2, fsdp=2, tensor=1, whose product is not 8, the'),
    (sizes(-1, 3), 'data=-1, fsdp=3, tensor=1, whose product'),
    (sizes(-1, 16), 'product is not 8, the number of devices'),
    (sizes(-1, -1), 'at most one -1'),
    (sizes(0, 8), 'sizes must be positive'),
    (sizes(-2, 8), 'sizes must be positive'),
  ],
)
def test_invalid_mesh_sizes(mesh, message):
  with pytest.raises(InputError, match=message):
    make_mesh(mesh)


def test_a_batch_must_fit_the_data_shards():
  mesh = make_mesh(sizes(2, 2, 2))
  check_batch_size('config.train.batch_size', 8, mesh, accumulate=2)
  with pytest.raises(InputError, match=r'train.batch_size = 6 .*multiple of 4'):
    check_batch_size('config.train.batch_size', 6, mesh)
  with pytest.raises(InputError, match=r'= 12 .*of 8 .4 data shards .*x 2 micro-batc'):
    check_batch_size('config.train.batch_size', 12, mesh, accumulate=2)
  with pytest.raises(InputError, match=r'eval.batch_size = 0 is not a positive'):
    check_batch_size('config.eval.batch_size', 0, mesh)


def boxed(shape: tuple[int, ...], *axes: str | None):
  """Returns a parameter's shape with logical axes, as `eval_shape` gives it."""
  init = partitioned(nn.initializers.zeros, *axes)
  return jax.eval_shape(lambda: {'mlp': {'kernel': init(jax.random.key(0), shape)}})


@pytest.mark.parametrize(
  ('axes', 'spec'),
  [
    (('embed', 'mlp'), ('fsdp', 'tensor')),
    (('mlp', 'embed'), ('tensor', 'fsdp')),
    (('vocab', 'embed'), ('tensor', 'fsdp')),
    (('embed', 'joined_kv'), ('fsdp', 'tensor')),
    (('heads', None), ('tensor', None)),
    (('conv_in', 'conv_out'), ('fsdp', 'tensor')),
    ((None, None), (None, None)),
  ],
)
def test_logical_axes_map_to_mesh_axes(axes, spec):
  shardings = parameter_shardings(boxed((8, 8), *axes), make_mesh(sizes(2, 2, 2)))
  assert shardings['mlp']['kernel'].spec == PartitionSpec(*spec)


@pytest.mark.parametrize(
  ('changes', 'mesh', 'message'),
  [
    ({'vit.heads': 4}, (1, 1, 8), r'tensor = 8 .*model\.vit\.heads = 4 '),
    ({'vit.mlp': 20}, (2, 1, 4), None),
    ({'vit.mlp': 18}, (2, 1, 4), r'tensor = 4 .* config\.model\.vit\.mlp = 18'),
    ({'t5.heads': 4, 't5.head_dim': 4}, (1, 1, 8), r'config\.model\.t5\.heads = 4 '),
    ({'t5.vocab_size': 42}, (1, 1, 8), r'config\.model\.t5\.vocab_size = 42'),
    ({'t5.width': 20}, (1, 8, 1), r'fsdp = 8 .* config\.model\.t5\.width = 20'),
    (
      {'heatmap_head.readout': 6},
      (2, 1, 4),
      r'a width in .*\.heatmap_head = 6',
    ),
    (
      {'score_head.dense': (10,)},
      (2, 1, 4),
      r'a width in .*\.score_head = 10',
    ),
  ],
)
def test_an_indivisible_size_is_named(changes, mesh, message):
  config = tiny()
  for field, value in changes.items():
    section, name = field.split('.')
    part = dataclasses.replace(getattr(config, section), **{name: value})
    config = dataclasses.replace(config, **{section: part})
  mesh = make_mesh(dict(zip(sharding.AXES, mesh, strict=True)))
  if message is None:
    StateFactory(init_of(config), optax.sgd(0.1), mesh)
    return
  with pytest.raises(InputError, match=rf'^config\.mesh\..*{message}.*change one of'):
    StateFactory(init_of(config), optax.sgd(0.1), mesh)


def init_of(config):
  return functools.partial(init_variables, RAHF(config))


def test_a_batch_is_split_over_data_and_fsdp():
  mesh = make_mesh(sizes(2, 2, 2))
  batch = make_batch(tiny(), rows=8)
  placed = put_batch(batch, mesh)
  for array, rows in zip(placed, batch, strict=True):
    np.testing.assert_array_equal(array, rows)
    assert {shard.data.shape[0] for shard in array.addressable_shards} == {2}
    assert array.sharding == sharding.batch_sharding(mesh)
  assert jnp.asarray(placed.image).dtype == jnp.float32


@pytest.mark.parametrize('mesh', [sizes(8), sizes(2, 2, 2), sizes(1, 1, 8)])
def test_one_process_reads_all_rows(mesh):
  assert process_rows(16, make_mesh(mesh)).tolist() == list(range(16))
