"""Iterators in worker processes."""

import functools
import itertools
import os
import signal
import time

import numpy as np
import pytest

from rahf.data.pipeline.workers import in_turn
from rahf.errors import InputError


def count(number: int, workers: int = 3):
  """Yields (process, i, array) for every `workers`-th i."""
  for i in itertools.count(number, workers):
    yield os.getpid(), i, np.full((2, 3), i, np.float32)


def fail(number: int):
  yield number
  raise InputError(f'{number} has no more')


def vanish(number: int):
  yield number
  os.kill(os.getpid(), signal.SIGKILL)


def processes_end(pids, seconds: float = 30) -> bool:
  """Waits until none of the processes runs."""
  end = time.monotonic() + seconds
  while time.monotonic() < end:
    if not any(os.path.exists(f'/proc/{pid}') for pid in pids):
      return True
    time.sleep(0.1)
  return False


def test_order_and_arrays():
  items = in_turn(count, 3)
  found = list(itertools.islice(items, 10))
  assert [i for _, i, _ in found] == list(range(10))
  pids = {pid for pid, _, _ in found}
  assert len(pids) == 3
  assert os.getpid() not in pids
  for _, i, array in found:
    np.testing.assert_array_equal(array, np.full((2, 3), i, np.float32))
    array += 1  # Arrays can be written to.
  items.close()
  assert processes_end(pids)


def large(number: int):
  """Yields arrays that fill a block of memory, of different sizes."""
  for i in itertools.count():
    yield np.full(50_000 + i % 3, i), np.full((3, 5), -i, np.float32)


def test_arrays_that_are_kept_never_change():
  items = in_turn(large, 1)
  kept = []
  for i, (long, short) in enumerate(itertools.islice(items, 40)):
    if i % 5 == 0:
      kept.append((i, long[7:], short.T))  # The arrays themselves are dropped.
  items.close()
  for i, long, short in kept:
    np.testing.assert_array_equal(long, i)
    np.testing.assert_array_equal(short, -i)


def test_memory_is_used_again():
  items = in_turn(large, 1)
  addresses = {long.ctypes.data for long, *_ in itertools.islice(items, 60)}
  items.close()
  # Two objects wait, one is in use, one is made, and 50,002 numbers need new blocks.
  assert len(addresses) < 10


def test_signals_to_all_processes_leave_the_workers_to_us():
  """As when Slurm asks all processes of a job to end, or on Ctrl-C."""
  items = in_turn(functools.partial(count, workers=1), 1)
  pid, *_ = next(items)
  os.kill(pid, signal.SIGTERM)
  os.kill(pid, signal.SIGINT)
  found = [i for _, i, _ in itertools.islice(items, 50)]
  assert found == list(range(1, 51))
  items.close()
  assert processes_end([pid])


def test_errors_of_workers_are_raised_here_in_order():
  items = in_turn(fail, 2)
  assert [next(items), next(items)] == [0, 1]
  with pytest.raises(InputError, match='0 has no more'):
    next(items)


class Vanishing:
  """Ends the process that unpickles it; larger than what a pipe holds."""

  def __init__(self):
    self.payload = bytes(10**6)

  def __setstate__(self, state):
    os.kill(os.getpid(), signal.SIGKILL)

  def __call__(self, number: int):
    yield number


def test_a_worker_that_vanishes_at_the_start_is_named():
  with pytest.raises(OSError, match='ended with exit code -9'):
    next(in_turn(Vanishing(), 1))


def test_a_worker_that_vanishes_is_named():
  items = in_turn(vanish, 1)
  assert next(items) == 0
  with pytest.raises(
    OSError, match=r'ended with exit code -9; .* lower config\.data\.workers'
  ):
    next(items)
