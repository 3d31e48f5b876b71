"""Fixtures: a model with the goldens' sizes, and writable copies of the goldens."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

import tiny_model
from rahf.models.rahf import RAHF, RAHFConfig
from rahf.models.t5 import T5Config
from rahf.models.vit import ViTConfig
from rahf.runtime import sharding
from rahf.runtime.tree import by_path


@pytest.fixture(scope='session')
def golden_model() -> RAHFConfig:
  """The sizes of `vit_tiny` and `t5x_v1_1`, with small heads."""
  return dataclasses.replace(
    tiny_model.TINY,
    vit=ViTConfig(patch=8, width=24, layers=2, heads=3, mlp=40),
    t5=T5Config(384, 24, 3, 8, 40, 2, 2),
  )


@pytest.fixture(scope='session')
def describe_params():
  """Returns the parameters of a model by path, on a mesh of the given sizes."""

  def describe(model: RAHFConfig, **sizes: int) -> dict[str, jax.ShapeDtypeStruct]:
    size = model.image_size
    boxed = jax.eval_shape(
      lambda key: RAHF(model).init(
        key,
        jnp.zeros((1, size, size, 3)),
        jnp.ones((1, model.texts, 1), jnp.int32),
        jnp.ones((1, 1), jnp.int32),
        train=False,
      )['params'],
      jax.random.key(0),
    )
    one = {'data': 1, 'fsdp': 1, 'tensor': 1}
    devices = None if sizes else jax.devices()[:1]
    mesh = sharding.make_mesh(one | sizes, devices)
    shardings = by_path(sharding.parameter_shardings(boxed, mesh))
    return {
      path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=shardings[path])
      for path, leaf in by_path(nn.unbox(boxed)).items()
    }

  return describe


@pytest.fixture(scope='session')
def golden_params(golden_model, describe_params) -> dict[str, jax.ShapeDtypeStruct]:
  return describe_params(golden_model)


@pytest.fixture
def t5x(assets, tmp_path):
  """A copy of T5X's v1.1 checkpoint."""
  return shutil.copytree(
    assets / 'golden' / 't5x_v1_1' / 'checkpoint_0', tmp_path / 'checkpoint_0'
  )


class Payload:
  """An object whose unpickling creates a file."""

  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return open, (self.path, 'w')


@pytest.fixture
def payload(tmp_path):
  """A payload that must never be unpickled; checks that it was not."""
  trace = tmp_path / 'trace'
  yield Payload(trace)
  assert not trace.exists()
