"""Loading into a model is strict and sharded, and leaves fresh parameters alone."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import serialization

from rahf.config import default_config
from rahf.errors import InputError
from rahf.models.init import init_variables
from rahf.models.rahf import RAHF
from rahf.pretrained import loading, open_source
from rahf.pretrained.positions import resample_positions
from rahf.pretrained.source import Weight
from rahf.runtime import sharding
from rahf.runtime.tree import by_path
from rahf.training.optimizer import make_optimizer
from rahf.training.state import StateFactory

NORM = 'vit/Transformer/encoder_norm/scale'
HEADS = {
  'heatmap_head_implausibility',
  'heatmap_head_misalignment',
  *(f'score_head_{n}' for n in ('plausibility', 'alignment', 'aesthetics', 'overall')),
}


@pytest.fixture
def vit_arrays(assets) -> dict[str, np.ndarray]:
  with np.load(assets / 'golden' / 'vit_tiny_linen_names.npz') as file:
    return dict(file)


@pytest.fixture
def init(t5x, assets) -> dict[str, str]:
  vit = assets / 'golden' / 'vit_tiny_release_names.npz'
  return {'vit': str(vit), 't5': str(t5x), 'rahf': ''}


@pytest.fixture
def sources(init):
  return loading.open_sources(init)


def make_factory(model, **mesh: int) -> StateFactory:
  options = default_config().optimizer
  return StateFactory(
    functools.partial(init_variables, RAHF(model)),
    make_optimizer(options, steps=10),
    sharding.make_mesh(mesh),
  )


def test_everything_but_projection_and_heads_is_loaded(
  sources, golden_params, golden_model
):
  plan = loading.plan(sources, golden_params, golden_model)
  assert {path.split('/')[0] for path in plan.fresh} == {'image_projection'} | HEADS
  assert plan.loaded.keys() | set(plan.fresh) == golden_params.keys()
  assert not plan.resized
  arrays = plan.read()
  assert arrays.keys() == plan.loaded.keys()
  for path, weight in plan.loaded.items():
    np.testing.assert_array_equal(arrays[path], weight.read(), err_msg=path)


def test_the_report_counts_everything(sources, golden_params, golden_model, init):
  report = loading.plan(sources, golden_params, golden_model).report()
  assert report.splitlines()[:5] == [
    f'init.vit: ViT release (.npz), {init["vit"]}',
    '  loaded:  38 arrays, 14,072 values',
    '  ignored: 2 arrays: pretraining classifier',
    f'init.t5: T5X checkpoint, {init["t5"]}',
    # 2 x 384 x 24, 2 x 96, 12 norms, 6 x 4 attention and 4 x 3 MLP kernels.
    f'  loaded:  52 arrays, {18432 + 192 + 288 + 24 * 576 + 12 * 960:,} values',
  ]
  assert report.splitlines()[-1].startswith('fresh: ')


def test_sharded_equals_unsharded(init, golden_model):
  factory = make_factory(golden_model, data=1, fsdp=8, tensor=1)
  with jax.set_mesh(sharding.make_mesh({'data': 1, 'fsdp': 8, 'tensor': 1})):
    params = by_path(factory.abstract.params)
    plan = loading.plan(loading.open_sources(init), params, golden_model)
    state = factory.from_params(factory.fresh_params(3, plan.fresh) | plan.read())
    expected = factory.make(3)
  assert jax.tree.structure(state) == jax.tree.structure(expected)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(
    lambda x: (x.shape, x.dtype), expected
  )
  found, fresh = by_path(state.params), by_path(expected.params)
  for path, array in found.items():
    assert array.sharding == params[path].sharding, path
    if path in plan.loaded:
      np.testing.assert_array_equal(array, plan.loaded[path].read(), err_msg=path)
    else:
      np.testing.assert_array_equal(array, fresh[path], err_msg=path)
  kernel = found['t5/encoder/layers_0/attention/query/kernel']
  assert {shard.data.shape for shard in kernel.addressable_shards} == {(3, 24)}
  for one, other in zip(
    jax.tree.leaves(state.opt_state), jax.tree.leaves(expected.opt_state), strict=True
  ):
    assert one.sharding == other.sharding
    np.testing.assert_array_equal(one, other)
  assert int(state.step) == 0


def test_positions_are_resampled_for_another_image_size(
  sources, describe_params, golden_model
):
  model = dataclasses.replace(golden_model, image_size=64)
  plan = loading.plan({'vit': sources['vit']}, describe_params(model), model)
  assert plan.resized == {loading.POSITIONS}
  assert 'resized: 1 array, 1,560 values' in plan.report()
  assert '[1, 17, 24] to [1, 65, 24]' in plan.report()
  expected = resample_positions(plan.loaded[loading.POSITIONS].read(), 65)
  np.testing.assert_array_equal(plan.read()[loading.POSITIONS], expected)
  # Without a T5, its parameters stay fresh.
  assert {'t5', 'image_projection'} < {path.split('/')[0] for path in plan.fresh}


def test_a_missing_array_is_named(vit_arrays, tmp_path, golden_params, golden_model):
  vit_arrays.pop(NORM.removeprefix('vit/'))
  np.savez(tmp_path / 'vit.npz', **vit_arrays)
  source = open_source(tmp_path / 'vit.npz')
  with pytest.raises(InputError, match=rf'vit.npz: {NORM} \[24\] is missing'):
    loading.plan({'vit': source}, golden_params, golden_model)


def test_a_superfluous_array_is_named(t5x, golden_params, golden_model):
  index = t5x / 'checkpoint'
  tree = serialization.msgpack_restore(index.read_bytes())
  tree['optimizer']['target']['encoder']['extra'] = np.ones(3, np.float32)
  index.write_bytes(serialization.msgpack_serialize(tree))
  with pytest.raises(
    ValueError, match=r'target/encoder/extra \[3\] has no place in the model'
  ):
    loading.plan({'t5': open_source(t5x)}, golden_params, golden_model)


@pytest.mark.parametrize(
  ('path', 'array', 'message'),
  [
    (NORM, np.ones(25, np.float32), rf'\[25\] should have the shape \[24\] of {NORM}'),
    (
      loading.POSITIONS,
      np.ones((1, 19, 24), np.float32),
      r'pos_embedding \[1, 19, 24\] should have the shape \[1, 17, 24\]',
    ),
    (NORM, np.ones(24, np.int32), r'\[24\] has dtype int32, but .* must be floats'),
  ],
)
def test_another_shape_or_type_is_an_error(
  vit_arrays, tmp_path, golden_params, golden_model, path, array, message
):
  vit_arrays[path.removeprefix('vit/')] = array
  np.savez(tmp_path / 'vit.npz', **vit_arrays)
  source = open_source(tmp_path / 'vit.npz')
  with pytest.raises(InputError, match=message):
    loading.plan({'vit': source}, golden_params, golden_model)


def test_long_lists_of_problems_are_truncated(sources, golden_params, golden_model):
  vit = dataclasses.replace(sources['vit'], weights={})
  with pytest.raises(InputError, match=r'(?s)do not fit.*… and 18 more'):
    loading.plan({'vit': vit}, golden_params, golden_model)


def test_errors_for_other_settings_list_the_flags_to_give(
  sources, describe_params, golden_model
):
  vit = dataclasses.replace(golden_model.vit, norm_epsilon=1e-12, gelu='exact')
  t5 = dataclasses.replace(golden_model.t5, activations=('relu',))
  model = dataclasses.replace(golden_model, vit=vit, t5=t5)
  params = describe_params(model)
  with pytest.raises(InputError, match=r'other settings') as error:
    loading.plan(sources, params, model)
  assert str(error.value).splitlines()[1:] == [
    '  --config.model.vit.norm_epsilon=1e-06',
    '  --config.model.vit.gelu=tanh',
  ]
  with pytest.raises(InputError, match=r'other settings') as error:
    loading.plan({'t5': sources['t5']}, params, model)
  assert str(error.value).splitlines()[1:] == [
    """  '--config.model.t5.activations=('"'"'gelu'"'"', '"'"'linear'"'"')'"""
  ]


def test_a_source_provides_only_its_own_part(sources, golden_params, golden_model):
  with pytest.raises(ValueError, match=r'init.vit = .* is a T5X checkpoint with t5'):
    loading.plan({'vit': sources['t5']}, golden_params, golden_model)


def test_a_whole_model_leaves_nothing_fresh(init, sources, golden_params, golden_model):
  with pytest.raises(InputError, match=r'do not fit') as error:
    loading.plan({'rahf': sources['vit']}, golden_params, golden_model)
  assert 'heatmap_head_implausibility/conv_0/bias [8] is missing' in str(error.value)
  weights = {
    path: Weight(path, leaf.shape, leaf.dtype, functools.partial(np.ones, leaf.shape))
    for path, leaf in golden_params.items()
  }
  whole = dataclasses.replace(sources['vit'], weights=weights)
  plan = loading.plan({'rahf': whole}, golden_params, golden_model)
  assert plan.fresh == ()
  assert plan.report().endswith('fresh: 0 arrays, 0 values: none')
  with pytest.raises(InputError, match=r'config.init.vit and config.init.t5 must be'):
    loading.open_sources(init | {'rahf': init['vit']})
