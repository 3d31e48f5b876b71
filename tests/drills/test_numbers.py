"""NaN in a batch: the run stops or skips the step, and saves nothing of it."""

import numpy as np
import pytest
from etils import epath

import runs
import tiny
from rahf.runtime import sharding
from rahf.training.nan_guard import NonFiniteLossError
from rahf.workdir import ownership
from rahf.workdir.checkpoint import Checkpoints

# Field and value for one row of a batch. The square of the last value and the loss are
# finite; the sum of squared gradients, with a weight of 7, is not.
NAN = ('image', np.nan)
INFINITE_LOSS = ('scores', 1e30)
INFINITE_GRADIENT = ('scores', 1.8e19)


@pytest.fixture
def spoil(monkeypatch):
  """Returns a function that modifies a row in some batches of the next run.

  Its arguments are numbers of batches, from 1, that get NaN, or values by number.
  """
  put = sharding.put_batch

  def choose(*nan, chosen=None):
    numbers, chosen = iter(range(1, 1_000)), dict.fromkeys(nan, NAN) | (chosen or {})

    def spoilt(batch, mesh):
      if found := chosen.get(next(numbers)):
        field, value = found
        values = getattr(batch, field).copy()
        values[(0,) * values.ndim] = value
        batch = batch._replace(**{field: values})
        assert batch.score_mask[0, 0]
      return put(batch, mesh)

    monkeypatch.setattr(sharding, 'put_batch', spoilt)

  return choose


def make_config(data_dir, **changes):
  config = tiny.get_config(data_dir)
  config.train.update(checkpoint_every=1, keep_checkpoints=None, **changes)
  # Batches of evaluations would count too.
  config.eval.every = 100
  return config


def test_by_default_the_run_stops_without_saving(data_dir, tmp_path, spoil):
  spoil(3)
  with pytest.raises(NonFiniteLossError, match='step 3 is not finite'):
    runs.run_training(make_config(data_dir), tmp_path)
  assert Checkpoints(tmp_path).latest_step() == 2
  assert all(np.isfinite(x).all() for x in runs.read_checkpoint(tmp_path, 2).values())


def test_a_step_is_skipped_and_the_run_continues(data_dir, tmp_path, spoil):
  spoil(2)
  runs.run_training(make_config(data_dir, max_skipped=1), tmp_path)
  check_skipped(tmp_path, [2])
  assert line_of(tmp_path, 2)['loss/total'] is None


def line_of(workdir, step):
  (found,) = (
    row
    for row in runs.read_metrics_log(workdir)
    if (row['step'], row['split']) == (step, 'train') and 'loss/total' in row
  )
  return found


def check_skipped(workdir, steps):
  """Checks that these steps changed nothing, and the next one did."""
  states = [
    runs.read_checkpoint(workdir, n) for n in range(steps[0] - 1, steps[-1] + 2)
  ]
  before, *skipped_states, after = states
  for number, state in zip(steps, skipped_states, strict=True):
    assert int(state['step']) == number
    for name, values in before.items():
      if values.dtype != np.int32:
        np.testing.assert_array_equal(state[name], values, err_msg=name)
  kernels = [name for name in before if name.endswith('kernel')]
  assert any((after[name] != before[name]).any() for name in kernels)
  assert all(np.isfinite(x).all() for x in after.values())
  rows = runs.read_metrics_log(workdir)
  skipped = [(row['step'], row['skipped']) for row in rows if 'skipped' in row]
  assert skipped == [(step, 1 + i) for i, step in enumerate(steps)]


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_in_one_micro_batch(data_dir, tmp_path, spoil, long, dtype):
  """The whole step is skipped: a mean of the rest would cover other examples."""
  if dtype == 'float32' and not long:
    pytest.skip('only with --long; bfloat16 always runs')
  config = make_config(data_dir, max_skipped=3, accumulate=2, steps=5)
  config.mesh.update(data=4, tensor=2)
  config.model.dtype = dtype
  config.review.page = 0
  config.loss.score = 7.0
  spoil(chosen={2: INFINITE_GRADIENT, 3: NAN, 4: INFINITE_LOSS})
  runs.run_training(config, tmp_path)
  check_skipped(tmp_path, [2, 3, 4])
  # Values that are not finite are null.
  found = [
    [line_of(tmp_path, step)[name] is None for name in ('loss/total', 'gradient_norm')]
    for step in range(1, 6)
  ]
  none, both = [False, False], [True, True]
  assert found == [none, [False, True], both, both, none]


def test_parameters_that_a_step_makes_infinite(data_dir, tmp_path):
  """Loss and gradient of that step are still finite."""
  config = make_config(data_dir, steps=3)
  config.optimizer.learning_rate = 1e6
  config.optimizer.rate_factors = (('.', 1e6),) * 6
  with pytest.raises(NonFiniteLossError, match=r'not finite .*parameter_norm inf'):
    runs.run_training(config, tmp_path)
  for step in ownership.complete_steps(epath.Path(tmp_path)):
    state = runs.read_checkpoint(tmp_path, step)
    assert all(np.isfinite(values).all() for values in state.values())


def test_the_limit_applies_to_the_whole_run(data_dir, tmp_path, spoil):
  """Even if it was stopped in between."""
  spoil(2)
  config = make_config(data_dir, max_skipped=1, steps=3)
  runs.run_training(config, tmp_path)
  config.train.steps = 6
  # Removed, since a longer schedule would be refused as another config.
  (tmp_path / 'config.json').unlink()
  spoil(2)
  with pytest.raises(NonFiniteLossError, match='step 5 is not finite'):
    runs.run_training(config, tmp_path)
  assert Checkpoints(tmp_path).latest_step() == 4
