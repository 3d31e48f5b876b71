"""What counts as training time, and what as waiting."""

import time

import pytest

from rahf.training.step_timer import Pace


@pytest.fixture
def clock(monkeypatch):
  """Time passes only where `clock[0]` is changed."""
  now = [100.0]
  monkeypatch.setattr(time, 'perf_counter', lambda: now[0])
  return now


def test_what_is_not_training_is_left_out(clock):
  pace = Pace(3)
  for _ in range(4):
    with pace.waiting():
      clock[0] += 0.5
    clock[0] += 1.5
  with pace.paused():
    clock[0] += 60
  speed = pace.read(7, batch_size=16)
  assert speed == {'step_seconds': 2, 'examples_per_second': 8, 'input_wait': 0.25}


def test_each_reading_begins_anew(clock):
  pace = Pace(0)
  with pace.waiting():
    clock[0] += 1
  pace.restart(1)
  clock[0] += 3
  expected = {'step_seconds': 3, 'examples_per_second': 1 / 3, 'input_wait': 0}
  assert pace.read(2, batch_size=1) == expected
  assert pace.read(2, batch_size=1) == {}
