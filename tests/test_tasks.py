"""The trainer trains, kills and resumes a task that it does not know."""

import numpy as np
import pytest

import runs
import toy_task
from rahf.config import default_config
from rahf.errors import InputError
from rahf.tasks import make_task

CONFIG = '--config=tests/toy_task.py'


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('uninterrupted')
  runs.run_training(toy_task.get_config(), workdir)
  return workdir


def test_another_task_trains(uninterrupted):
  losses = [
    row['loss/total']
    for row in runs.read_metrics_log(uninterrupted)
    if row['split'] == 'train'
  ]
  assert len(losses) == 8
  assert losses[-1] < losses[0]
  rows = runs.read_metrics_log(uninterrupted)
  assert [(row['step'], row['split']) for row in rows if row['split'] != 'train'] == [
    (4, 'dev'),
    (8, 'dev'),
    (8, 'test'),
  ]


def test_other_collections_are_in_the_checkpoint(uninterrupted):
  found = runs.read_checkpoint(uninterrupted, 8)
  mean = found['collections/batch_stats/BatchNorm_0/mean']
  assert np.any(mean != 0)
  average = found['average/Conv_0/kernel']
  assert average.shape == found['params/Conv_0/kernel'].shape
  assert np.any(average != found['params/Conv_0/kernel'])


def test_the_average_of_the_parameters(uninterrupted):
  """Two updates with decay 0.9 from the checkpoint of step 6, at steps 7 and 8."""
  kernels = [
    runs.read_checkpoint(uninterrupted, step)['params/Conv_0/kernel'] for step in (6, 8)
  ]
  averages = [
    runs.read_checkpoint(uninterrupted, step)['average/Conv_0/kernel']
    for step in (6, 8)
  ]
  # The remainder, the unknown parameters of step 7, lies between both.
  rest = (averages[1] - 0.81 * averages[0] - 0.1 * kernels[1]) / 0.09
  low, high = np.minimum(*kernels), np.maximum(*kernels)
  slack = 1e-2  # Updates of 0.01 may change direction.
  assert np.all((low - slack <= rest) & (rest <= high + slack))


def test_a_killed_run_resumes_bit_for_bit(uninterrupted, tmp_path):
  process = runs.start(CONFIG, f'--workdir={tmp_path}')
  runs.wait_for(process, 'step 5/8')
  process.kill()
  process.communicate()
  process = runs.start(CONFIG, f'--workdir={tmp_path}')
  printed, errors = process.communicate()
  assert process.returncode == 0, errors
  assert 'Resuming' in printed
  assert runs.read_untimed(tmp_path) == runs.read_untimed(uninterrupted)
  expected, found = (runs.read_checkpoint(one, 8) for one in (uninterrupted, tmp_path))
  assert expected.keys() == found.keys()
  for name, values in expected.items():
    np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_an_unknown_task_is_refused():
  config = default_config()
  config.task = 'feedbak'
  with pytest.raises(InputError, match=r"config\.task = 'feedbak' is not one of feedb"):
    make_task(config)
