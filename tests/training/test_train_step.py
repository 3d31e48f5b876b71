"""The training step: the same on any mesh and for any number of micro-batches."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from rahf.data import schema
from rahf.models.rahf import RAHF, Outputs
from rahf.runtime import sharding
from rahf.runtime.tree import by_path
from rahf.tasks.feedback import FeedbackTask
from rahf.training.state import StateFactory, TrainState
from rahf.training.train_step import make_train_step, split_batch
from tiny_model import VARIANTS, make_batch, make_params, tiny

MODULES = (
  *('vit', 'image_projection', 't5/token_embedder', 't5/encoder', 't5/decoder'),
  *(f'heatmap_head_{name}' for name in schema.MAPS),
  *(f'score_head_{name}' for name in schema.SCORES),
)
WEIGHTS = types.SimpleNamespace(heatmap=3.0, score=2.0, sequence=1.0)
# Its state is the gradient; its update is minus a tenth of the gradient.
OPTIMIZER = optax.chain(optax.trace(decay=0.0), optax.scale(-0.1))


def make_task(model) -> FeedbackTask:
  return FeedbackTask(ConfigDict({'loss': WEIGHTS}), model)


@functools.cache
def run_step(
  variant: str = 'multi_head',
  mesh: tuple[int, int, int] = (1, 1, 1),
  accumulate: int = 1,
  remat: str = 'none',
  loop: bool = False,
  dropout: float = 0.0,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """Takes one step from the same parameters on the same batch."""
  model = RAHF(tiny(variant, remat=remat, loop=loop, dropout_rate=dropout))
  devices = jax.devices()[: np.prod(mesh)]
  mesh = sharding.make_mesh(dict(zip(sharding.AXES, mesh, strict=True)), devices)
  task = make_task(model)
  shardings = StateFactory(task.init, OPTIMIZER, mesh).shardings
  gather = functools.partial(
    sharding.gather, shardings=shardings.params, dtype=model.config.dtype
  )
  params = make_params(model)
  state = TrainState(np.zeros((), np.int32), params, OPTIMIZER.init(params))
  step = jax.jit(
    make_train_step(task, OPTIMIZER, gather=gather, accumulate=accumulate),
    out_shardings=(shardings, sharding.replicated(mesh)),
  )
  batch = sharding.put_batch(make_batch(model.config), mesh)
  with jax.set_mesh(mesh):
    return step(jax.device_put(state, shardings), batch, jax.random.key(0))


def gradients(state: TrainState) -> dict[str, np.ndarray]:
  return {k: np.asarray(v) for k, v in by_path(state.opt_state[0].trace).items()}


def check_same(found, expected) -> None:
  """Compares losses to 1e-5, each parameter's gradient to 1e-4."""
  (state, metrics), (expected_state, expected_metrics) = found, expected
  for name, value in expected_metrics.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
  ours, theirs = gradients(state), gradients(expected_state)
  norm = float(expected_metrics['gradient_norm'])
  for path, gradient in theirs.items():
    error = np.linalg.norm(ours[path] - gradient)
    # Some gradients are 0 by symmetry, as those of the ViT's key biases.
    assert error <= 1e-4 * np.linalg.norm(gradient) + 1e-7 * norm, path
  moved, expected_moved = by_path(state.params), by_path(expected_state.params)
  for path, parameter in expected_moved.items():
    np.testing.assert_allclose(moved[path], parameter, atol=1e-5, err_msg=path)


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('mesh', [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 1, 8)])
def test_eight_devices_give_what_one_gives(variant, mesh, capfd):
  # Two micro-batches where every axis is split.
  found = run_step(variant, mesh, accumulate=2 if mesh == (2, 2, 2) else 1)
  check_same(found, run_step(variant))
  # XLA logs this if it copies a whole array to all devices to split it again.
  assert 'full rematerialization' not in capfd.readouterr().err


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize(
  'settings',
  [
    {'remat': 'heads'},
    {'remat': 'blocks'},
    {'loop': True},
    {'remat': 'blocks', 'loop': True, 'mesh': (2, 2, 2)},
  ],
  ids=str,
)
def test_what_saves_memory_or_time_does_not_change_the_step(variant, settings, capfd):
  """Dropout included."""
  dropping = run_step(variant, dropout=0.5)
  check_same(run_step(variant, **settings, dropout=0.5), dropping)
  assert 'full rematerialization' not in capfd.readouterr().err
  with pytest.raises(AssertionError):
    check_same(run_step(variant), dropping)


def test_micro_batches_add_up_to_the_batch():
  """Four here; two above, on a mesh."""
  batch = make_batch(tiny())
  # Labels are missing, and not equally often in each micro-batch.
  assert batch.map_mask[0::4].sum() != batch.map_mask[1::4].sum()
  assert batch.score_mask[0::4].sum() != batch.score_mask[1::4].sum()
  assert batch.keyword_mask[0::4].sum() != batch.keyword_mask[1::4].sum()
  check_same(run_step(accumulate=4), run_step())


def test_the_step_counts_and_reports():
  state, metrics = run_step()
  assert int(state.step) == 1
  assert set(metrics) == {
    'loss/heatmap',
    'loss/score',
    'loss/sequence',
    'loss/total',
    'gradient_norm',
    'parameter_norm',
    *(
      f'{kind}_norm/{module}'
      for kind in ('gradient', 'parameter')
      for module in MODULES
    ),
  }
  total = 3 * metrics['loss/heatmap'] + 2 * metrics['loss/score']
  total += metrics['loss/sequence']
  np.testing.assert_allclose(metrics['loss/total'], total, rtol=1e-6)
  squares = sum(float((g**2).sum()) for g in gradients(state).values())
  np.testing.assert_allclose(metrics['gradient_norm'], squares**0.5, rtol=1e-5)
  for kind, leaves in (
    ('gradient', gradients(state)),
    ('parameter', by_path(state.params)),
  ):
    for module in MODULES:
      own = [x for path, x in leaves.items() if path.startswith(f'{module}/')]
      expected = np.linalg.norm(np.concatenate([np.ravel(x) for x in own]))
      found = metrics[f'{kind}_norm/{module}']
      np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=module)
  assert all(np.isfinite(value) for value in metrics.values())


def test_the_step_goes_against_the_gradient():
  before, (state, _) = by_path(make_params(RAHF(tiny()))), run_step()
  moved = by_path(state.params)
  for path, gradient in gradients(state).items():
    expected = before[path] - 0.1 * gradient
    np.testing.assert_allclose(moved[path], expected, atol=1e-6, err_msg=path)


def test_bfloat16_keeps_parameters_gradients_and_losses_in_float32():
  model = RAHF(tiny(dtype='bfloat16'))
  params = make_params(model)
  state = TrainState(np.zeros((), np.int32), params, OPTIMIZER.init(params))
  step = make_train_step(make_task(model), OPTIMIZER)
  key = jax.random.key(0)
  after, metrics = jax.eval_shape(step, state, make_batch(model.config), key)
  floats = [after.params, after.opt_state, metrics]
  assert {leaf.dtype.name for leaf in jax.tree.leaves(floats)} == {'float32'}


class RandomScores:
  """Stands in for the model: its scores are what the dropout key draws."""

  def apply(self, variables, image, text, target, *, train, rngs) -> Outputs:
    assert train
    rows = len(image)
    return Outputs(
      maps=jnp.zeros((rows, 2, *image.shape[1:3])),
      scores=variables['params'] * jax.random.uniform(rngs['dropout'], (rows, 4)),
      logits=jnp.zeros((*target.shape, 40)),
    )


def test_each_step_and_micro_batch_has_its_own_dropout():
  def score_loss(number: int, accumulate: int = 1, seed: int = 0) -> float:
    step = make_train_step(make_task(RandomScores()), OPTIMIZER, accumulate=accumulate)
    one = jnp.ones(())
    state = TrainState(jnp.int32(number), one, OPTIMIZER.init(one))
    batch = make_batch(tiny())._replace(
      scores=np.zeros((8, 4), np.float32), score_mask=np.ones((8, 4), bool)
    )
    batch = jax.tree.map(jnp.asarray, batch)
    return float(step(state, batch, jax.random.key(seed))[1]['loss/score'])

  first = score_loss(3)
  assert first == score_loss(3)
  others = score_loss(4), score_loss(3, seed=1), score_loss(3, accumulate=2)
  assert len({first, *others}) == 4
  # Four draws of two rows; the same key four times would repeat one of them.
  keys = jax.random.fold_in(jax.random.key(0), 3)
  keys = [jax.random.fold_in(keys, i) for i in range(4)]
  draws = jnp.concatenate([jax.random.uniform(key, (2, 4)) for key in keys])
  expected = float(jnp.sum(jnp.mean(draws**2, axis=0)))
  assert score_loss(3, accumulate=4) == pytest.approx(expected, rel=1e-5)


def test_a_micro_batch_takes_every_nth_row():
  parts = split_batch({'x': np.arange(12).reshape(6, 2)}, 3)['x']
  np.testing.assert_array_equal(parts[0], [[0, 1], [6, 7]])
  np.testing.assert_array_equal(parts[2], [[4, 5], [10, 11]])
  assert parts.shape == (3, 2, 2)
