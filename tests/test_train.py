"""Training from end to end, with runs that are stopped, killed or damaged."""

import json
import math
import pathlib
import shutil
import signal
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

import runs
import tiny
from rahf.errors import InputError
from rahf.reports.gallery import WORST
from rahf.training.nan_guard import FiniteCheck, NonFiniteLossError
from rahf.workdir.checkpoint import Checkpoints


def test_run_crashed_between_checkpoints_ends_like_an_uninterrupted_one(
  trained, data_dir, tmp_path
):
  config = tiny.get_config(data_dir)
  runs.crash(config, tmp_path, step=3)
  assert Checkpoints(tmp_path).latest_step() == 2
  runs.run_training(config, tmp_path)
  runs.assert_same_run(trained, tmp_path)
  # Running once more changes nothing.
  runs.run_training(config, tmp_path)
  runs.assert_same_run(trained, tmp_path)


def test_run_stopped_in_evaluation_then_killed_ends_like_an_uninterrupted_one(
  trained, data_dir, tmp_path
):
  workdir = f'--workdir={tmp_path}'
  stopped = runs.start_tiny(data_dir, workdir)
  runs.wait_for(stopped, 'step 2/4')
  stopped.send_signal(signal.SIGTERM)
  printed, errors = stopped.communicate(timeout=100)
  assert stopped.returncode == 0, errors
  assert 'Interrupted after step 2' in printed
  assert 'Traceback' not in errors
  assert Checkpoints(tmp_path).latest_step() == 2
  assert not (tmp_path / 'eval/dev-2.json').exists()

  killed = runs.start_tiny(data_dir, workdir)
  runs.wait_for(killed, 'step 3/4')
  killed.kill()
  printed, _ = killed.communicate(timeout=100)
  assert killed.returncode == -signal.SIGKILL
  # The missed evaluation came before step 3.
  assert (tmp_path / 'eval/dev-2.json').exists()
  assert Checkpoints(tmp_path).latest_step() == 2

  runs.run_training(tiny.get_config(data_dir), tmp_path)
  runs.assert_same_run(trained, tmp_path)


def catches_sigterm(process):
  """Returns whether the process handles SIGTERM, according to Linux."""
  status = pathlib.Path(f'/proc/{process.pid}/status').read_text()
  caught = next(line for line in status.splitlines() if line.startswith('SigCgt'))
  return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def wait_until(condition):
  deadline = time.monotonic() + 100
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.05)


def test_sigterm_before_the_first_step_ends_cleanly(tmp_path):
  # Data that several processes generate.
  many = '--config.data.shapes.train=100000'
  importing = runs.start_tiny(tmp_path / 'none', many, f'--workdir={tmp_path}/run')
  wait_until(lambda: catches_sigterm(importing))
  importing.terminate()
  generating = runs.start_tiny(tmp_path / 'data', many, f'--workdir={tmp_path}/run')
  wait_until(lambda: list((tmp_path / 'data').rglob('*incomplete*')))
  time.sleep(3)
  generating.terminate()
  for process in (importing, generating):
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert 'Traceback' not in errors
    assert 'Interrupted' in printed
  assert not (tmp_path / 'run').exists()
  assert not (tmp_path / 'none').exists()
  assert not list((tmp_path / 'data').rglob('*incomplete*'))
  assert not list((tmp_path / 'data').rglob('*.tfrecord*'))


def test_the_best_checkpoint_is_kept(data_dir, tmp_path, capsys):
  config = tiny.get_config(data_dir)
  metric = 'implausibility/cc'
  config.train.update(checkpoint_every=1, keep_checkpoints=1, keep_best=metric)
  config.eval.every = 1
  runs.run_training(config, tmp_path)
  values = {
    row['step']: row[metric]
    for row in runs.read_metrics_log(tmp_path)
    if row['split'] == 'dev'
  }
  assert len(values) == 4
  # Step 4 was saved before it was evaluated.
  before = max(range(1, 4), key=values.get)
  there = {path.name for path in (tmp_path / 'checkpoints').iterdir()}
  assert there == {str(before), '4'}
  lines = [line for line in capsys.readouterr().out.splitlines() if 'so far' in line]
  assert f'dev, step {before}' in lines[-1 if values[4] <= values[before] else -2]


def test_another_config_in_the_directory_is_refused_with_the_difference(
  trained, data_dir
):
  before = (trained / 'config.json').read_text()
  config = tiny.get_config(data_dir)
  config.optimizer.learning_rate = 0.5
  config.train.batch_size = 16
  with pytest.raises(InputError, match='another config') as raised:
    runs.run_training(config, trained)
  assert 'config.optimizer.learning_rate: 0.001 there, 0.5 here' in str(raised.value)
  assert 'config.train.batch_size: 8 there, 16 here' in str(raised.value)
  assert (trained / 'config.json').read_text() == before
  assert json.loads(before)['data']['dir'] == str(data_dir)


def test_a_non_finite_loss_stops_before_saving(data_dir, tmp_path):
  config = tiny.get_config(data_dir)
  config.optimizer.learning_rate = 1e6
  config.optimizer.rate_factors = (('.', 1e5),) * 2
  config.train.update(checkpoint_every=1, keep_checkpoints=1, log_every=100)
  config.eval.every = 100
  with pytest.raises(NonFiniteLossError, match='step 2 is not finite'):
    runs.run_training(config, tmp_path)
  assert Checkpoints(tmp_path).latest_step() == 1
  assert all(np.isfinite(x).all() for x in runs.read_checkpoint(tmp_path, 1).values())


def test_an_infinite_gradient_stops_the_run():
  check = FiniteCheck(0)
  assert not check(2, {'loss/total': 1.0, 'gradient_norm': 2.0})
  with pytest.raises(NonFiniteLossError, match='step 3'):
    check(3, {'loss/total': 1.0, 'gradient_norm': math.inf})


def test_lines_of_the_metrics_log(trained):
  rows = runs.read_metrics_log(trained)
  assert [(row['step'], row['split']) for row in rows] == [
    (1, 'train'),
    (2, 'train'),
    (2, 'dev'),
    (3, 'train'),
    (4, 'train'),
    (4, 'dev'),
    (4, 'test'),
  ]
  for row in rows:
    parts = [row[f'loss/{name}'] for name in ('heatmap', 'score', 'sequence')]
    assert row['loss/total'] == pytest.approx(sum(parts))
  assert rows[1]['examples_per_second'] == pytest.approx(8 / rows[1]['step_seconds'])
  assert 0 <= rows[1]['input_wait'] <= 1


def test_tensorboard_files_can_be_read_back(trained):
  folder = trained / 'tensorboard'
  logs = {}
  for name in ('train', 'dev', 'review'):
    logs[name] = EventAccumulator(str(folder / name), {'tensors': 0})
    logs[name].Reload()

  def scalars(run, tag):
    events = logs[run].Tensors(tag)
    return {e.step: float(make_ndarray(e.tensor_proto)) for e in events}

  rows_by_key = {
    (row['step'], row['split']): row for row in runs.read_metrics_log(trained)
  }
  losses = scalars('train', 'loss/total')
  assert losses.keys() == {1, 2, 3, 4}
  assert losses[3] == pytest.approx(rows_by_key[3, 'train']['loss/total'])
  correlations = scalars('dev', 'overall/srcc')
  assert correlations[4] == pytest.approx(rows_by_key[4, 'dev']['overall/srcc'])
  rates = scalars('train', 'learning_rate')
  factors = (0.5, 1, math.sqrt(2 / 3), math.sqrt(2 / 4))
  assert rates == pytest.approx({i + 1: 1e-3 * f for i, f in enumerate(factors)})
  assert scalars('train', 'gradient_norm/vit')[3] > 0
  assert scalars('train', 'parameter_norm/t5/encoder')[3] > 0
  shown = set(logs['review'].Tags()['tensors'])
  assert shown >= {
    *('dev examples/0', 'dev examples/1', 'dev scores/0', 'dev scores/1'),
    *(f'dev worst {name}/0' for name in WORST),
  }
  assert 'dev examples/2' not in shown
  picture = logs['review'].Tensors('dev examples/1')[0].tensor_proto.string_val
  width, height, png = int(picture[0]), int(picture[1]), picture[2]
  assert png.startswith(b'\x89PNG')
  assert width > 64
  assert height > 64
  text = logs['review'].Tensors('dev')[-1].tensor_proto.string_val[0].decode()
  assert text == (trained / 'eval/dev-4.md').read_text()


def test_incomplete_checkpoint_is_skipped_and_replaced(trained, data_dir, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(trained, workdir)
  broken = workdir / 'checkpoints/4'
  shutil.rmtree(broken)
  broken.mkdir()
  runs.run_training(tiny.get_config(data_dir), workdir)
  runs.assert_same_run(trained, workdir)
