"""NaN in a batch: the run stops or leaves the step out, and saves nothing of it."""

import numpy as np
import pytest

import runs
import tiny
from rahf import sharding
from rahf.checkpoint import Checkpoints
from rahf.finite import NonFiniteLossError


@pytest.fixture
def spoil(monkeypatch):
  """Returns a function that makes an image of some batches of the next run NaN."""
  put = sharding.put_batch

  def choose(*chosen):
    number = iter(range(1, 1_000))

    def spoilt(batch, mesh):
      if next(number) in chosen:
        image = batch.image.copy()
        image[0, 0, 0, 0] = np.nan
        batch = batch._replace(image=image)
      return put(batch, mesh)

    monkeypatch.setattr(sharding, 'put_batch', spoilt)

  return choose


def make_config(data_dir, **changes):
  config = tiny.get_config(data_dir)
  config.train.update(checkpoint_every=1, keep_checkpoints=None, **changes)
  # Batches of evaluations would be counted too.
  config.eval.every = 100
  return config


def test_by_default_the_run_stops_and_nothing_of_it_is_saved(data_dir, tmp_path, spoil):
  spoil(3)
  with pytest.raises(NonFiniteLossError, match='step 3 is not finite'):
    runs.run_training(make_config(data_dir), tmp_path)
  assert Checkpoints(tmp_path).latest_step() == 2
  assert all(np.isfinite(x).all() for x in runs.read_checkpoint(tmp_path, 2).values())


def test_a_step_is_left_out_and_the_run_goes_on(data_dir, tmp_path, spoil):
  spoil(2)
  runs.run_training(make_config(data_dir, max_skipped=1), tmp_path)
  before, left_out, after = (runs.read_checkpoint(tmp_path, n) for n in (1, 2, 3))
  for name, values in before.items():
    if values.dtype != np.int32:
      np.testing.assert_array_equal(left_out[name], values, err_msg=name)
  assert int(left_out['step']) == 2
  kernels = [name for name in before if name.endswith('kernel')]
  assert any((after[name] != before[name]).any() for name in kernels)
  assert all(np.isfinite(x).all() for x in after.values())
  rows = runs.read_journal(tmp_path)
  assert [(row['step'], row['skipped']) for row in rows if 'skipped' in row] == [(2, 1)]
  (lost,) = [r for r in rows if r['step'] == 2 and 'loss/total' in r]
  assert lost['loss/total'] is None


def test_the_limit_is_of_the_whole_run(data_dir, tmp_path, spoil):
  """Also when it was stopped in between."""
  spoil(2)
  config = make_config(data_dir, max_skipped=1, steps=3)
  runs.run_training(config, tmp_path)
  config.train.steps = 6
  # Another schedule is another run: this one only has further steps to show it.
  (tmp_path / 'config.json').unlink()
  spoil(2)
  with pytest.raises(NonFiniteLossError, match='step 5 is not finite'):
    runs.run_training(config, tmp_path)
  assert Checkpoints(tmp_path).latest_step() == 4
