"""What counts as training time, and what as waiting."""

import time

import pytest

from rahf.training.step_timer import StepTimer


@pytest.fixture
def clock(monkeypatch):
  """Time passes only where `clock[0]` is changed."""
  now = [100.0]
  monkeypatch.setattr(time, 'perf_counter', lambda: now[0])
  return now


def test_what_is_not_training_is_left_out(clock):
  timer = StepTimer(3)
  for _ in range(4):
    with timer.waiting():
      clock[0] += 0.5
    clock[0] += 1.5
  with timer.paused():
    clock[0] += 60
  speed = timer.read(7, batch_size=16)
  assert speed == {'step_seconds': 2, 'examples_per_second': 8, 'input_wait': 0.25}


def test_each_reading_begins_anew(clock):
  timer = StepTimer(0)
  with timer.waiting():
    clock[0] += 1
  timer.restart(1)
  clock[0] += 3
  expected = {'step_seconds': 3, 'examples_per_second': 1 / 3, 'input_wait': 0}
  assert timer.read(2, batch_size=1) == expected
  assert timer.read(2, batch_size=1) == {}
