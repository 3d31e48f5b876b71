"""Training states are created in shards: no device holds a whole one."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from rahf.config import default_config
from rahf.errors import InputError
from rahf.models.init import init_variables
from rahf.models.rahf import RAHF
from rahf.runtime import sharding
from rahf.runtime.tree import by_path
from rahf.training.optimizer import make_optimizer
from rahf.training.state import StateFactory
from tiny_model import tiny

WI = 't5/encoder/layers_0/mlp/wi_0/kernel'


def init_of(model):
  return functools.partial(init_variables, model)


def make_factory(freeze: tuple[str, ...] = (), **mesh: int) -> StateFactory:
  options = default_config().optimizer
  options.freeze = freeze
  mesh = sharding.make_mesh(mesh)
  return StateFactory(init_of(RAHF(tiny())), make_optimizer(options, steps=10), mesh)


@pytest.fixture(scope='module')
def factory() -> StateFactory:
  return make_factory(data=2, fsdp=2, tensor=2)


@pytest.fixture(scope='module')
def state(factory):
  return factory.make(seed=0)


def test_parameters_lie_in_their_shards(state):
  kernel = by_path(state.params)[WI]
  assert kernel.sharding.spec == PartitionSpec('fsdp', 'tensor')
  assert kernel.shape == (16, 24)
  shards = {shard.data.shape for shard in kernel.addressable_shards}
  assert shards == {(8, 12)}
  table = by_path(state.params)['t5/token_embedder/embedding']
  assert {shard.data.shape for shard in table.addressable_shards} == {(20, 8)}


def test_moments_lie_where_their_parameters_do(state):
  for name in ('mu', 'nu'):
    moments = by_path(optax.tree_utils.tree_get(state.opt_state, name))
    for path, parameter in by_path(state.params).items():
      assert moments[path].sharding == parameter.sharding, path
      assert moments[path].shape == parameter.shape


def test_the_description_fits_the_state(factory, state):
  described = by_path(factory.abstract)
  assert int(state.step) == 0
  assert described.keys() == by_path(state).keys()
  for path, leaf in by_path(state).items():
    assert (leaf.shape, leaf.dtype) == (described[path].shape, described[path].dtype)
    assert leaf.sharding == described[path].sharding, path


def test_a_seed_gives_the_same_state_on_any_mesh(state):
  other = make_factory(data=8, fsdp=1, tensor=1).make(seed=0)
  ours, theirs = by_path(state.params), by_path(other.params)
  for path, leaf in ours.items():
    np.testing.assert_allclose(leaf, theirs[path], atol=1e-6, err_msg=path)
  assert float(np.std(ours[WI])) > 0.1


def test_frozen_parameters_have_no_moments():
  state = make_factory(freeze=('^vit/',), data=1, fsdp=2, tensor=4).abstract
  moments = by_path(optax.tree_utils.tree_get(state.opt_state, 'mu'))
  parameters = by_path(state.params)
  assert moments.keys() == {p for p in parameters if not p.startswith('vit/')}
  assert moments[WI].sharding == parameters[WI].sharding
  assert moments[WI].sharding.spec == PartitionSpec('fsdp', 'tensor')


def test_a_model_that_the_mesh_does_not_divide_is_refused():
  model = RAHF(tiny(t5=dataclasses.replace(tiny().t5, vocab_size=42)))
  mesh = sharding.make_mesh(dict(data=1, fsdp=1, tensor=8))
  with pytest.raises(InputError, match=r'tensor = 8 does not divide .*\(16, 42\)'):
    StateFactory(init_of(model), optax.sgd(1.0), mesh)


def test_shardings_are_of_one_mesh(factory):
  meshes = {leaf.sharding.mesh for leaf in jax.tree.leaves(factory.abstract)}
  assert len(meshes) == 1
