"""Runs `tiny`, in this process or as a command, and reads the results."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import unittest.mock

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath
from ml_collections import ConfigDict
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rahf.runtime.preemption import Interruption
from rahf.runtime.tree import by_path
from rahf.train import train
from rahf.workdir.metrics_log import MetricsLog

ROOT = pathlib.Path(__file__).parents[1]
TIMES = ('step_seconds', 'examples_per_second', 'input_wait')
FOUR_DEVICES = (
  '--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0 '
  '--xla_llvm_disable_expensive_passes=true'
)


def run_training(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Trains in this process."""
  train(config, epath.Path(workdir), Interruption())


def crash(config: ConfigDict, workdir: pathlib.Path, *, step: int) -> None:
  """Trains in this process, which fails when it logs a step."""
  append = MetricsLog.append

  def append_or_fail(self, at, split, values):
    if at == step:
      raise KeyboardInterrupt
    append(self, at, split, values)

  with (
    unittest.mock.patch.object(MetricsLog, 'append', append_or_fail),
    pytest.raises(KeyboardInterrupt),
  ):
    run_training(config, workdir)


def start(*arguments: str, **environment: str) -> subprocess.Popen:
  """Starts `python -m rahf.main` from the project's root."""
  return subprocess.Popen(
    [sys.executable, '-u', '-m', 'rahf.main', *arguments],
    cwd=ROOT,
    env=os.environ | environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def start_tiny(
  data_dir: pathlib.Path, *arguments: str, **environment: str
) -> subprocess.Popen:
  """Starts `rahf.main` with the config tests/tiny.py."""
  return start_config('tiny', data_dir, *arguments, **environment)


def start_config(
  name: str, data_dir: pathlib.Path, *arguments: str, **environment: str
) -> subprocess.Popen:
  """Starts `rahf.main` with a config of tests/."""
  config = (f'--config=tests/{name}.py', f'--config.data.dir={data_dir}')
  return start(*config, *arguments, **environment)


def start_two(
  data_dir: pathlib.Path, workdir: pathlib.Path, name: str = 'tiny'
) -> list[subprocess.Popen]:
  """Starts two processes of a config with four devices each, as on two hosts."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  return [
    start_config(
      name,
      data_dir,
      f'--workdir={workdir}',
      '--multihost',
      XLA_FLAGS=FOUR_DEVICES,
      JAX_COORDINATOR_ADDRESS=address,
      JAX_NUM_PROCESSES='2',
      JAX_PROCESS_ID=str(number),
    )
    for number in range(2)
  ]


def wait_for(process: subprocess.Popen, line: str) -> None:
  """Reads the output of a process up to a line that contains this text."""
  for found in process.stdout:
    if line in found:
      return
  raise AssertionError(f'ended without {line!r}: {process.stderr.read()}')


def read_metrics_log(workdir: pathlib.Path) -> list[dict]:
  """Returns the lines of metrics.jsonl."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def read_untimed(workdir: pathlib.Path) -> list[dict]:
  """Returns the lines of metrics.jsonl without measurements of speed."""
  rows = read_metrics_log(workdir)
  return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def read_checkpoint(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
  """Returns all arrays of a checkpoint, parameters and optimizer state, by path."""
  path = workdir / 'checkpoints' / str(step) / 'default'
  with ocp.StandardCheckpointer() as checkpointer:
    described = checkpointer.metadata(path).item_metadata.tree
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
      described,
    )
    state = checkpointer.restore(path, target)
  return {path: np.asarray(leaf) for path, leaf in by_path(state).items()}


def assert_same_run(one, other):
  """Asserts equal metrics, and bitwise equal parameters and optimizer state."""
  assert read_untimed(one) == read_untimed(other)
  expected, found = (read_checkpoint(workdir, 4) for workdir in (one, other))
  assert expected.keys() == found.keys()
  assert any('opt_state' in name for name in found)
  for name, values in expected.items():
    np.testing.assert_array_equal(found[name], values, err_msg=name)
  for path in (one / 'eval').iterdir():
    assert path.read_bytes() == (other / 'eval' / path.name).read_bytes(), path.name
  assert pictures(one) == pictures(other)


def assert_close(found: list[dict], expected: list[dict]) -> None:
  """Compares losses in metrics.jsonl to 1e-5, norms of gradients to 1e-4."""
  assert [row.keys() for row in found] == [row.keys() for row in expected]
  for row, other in zip(found, expected, strict=True):
    assert (row['step'], row['split']) == (other['step'], other['split'])
    for name in other:
      tolerance = 1e-5 if name.startswith('loss/') else 1e-4
      if name.startswith(('loss/', 'gradient')):
        assert row[name] == pytest.approx(other[name], rel=tolerance), name


def pictures(workdir):
  """Returns the pictures in TensorBoard's files, if any, by name and step."""
  if not (workdir / 'tensorboard/review').exists():
    return {}
  events = EventAccumulator(
    str(workdir / 'tensorboard/review'), size_guidance={'tensors': 0}
  ).Reload()
  return {
    (tag, event.step): event.tensor_proto.SerializeToString()
    for tag in events.Tags()['tensors']
    for event in events.Tensors(tag)
  }
