"""Measures the speed of training and how long it waits for input."""

import contextlib
import time
from collections.abc import Iterator


class StepTimer:
  """Times training steps between two readings, leaving out everything else."""

  def __init__(self, step: int):
    self.restart(step)

  def restart(self, step: int) -> None:
    """Starts a new measurement, after `step` finished steps."""
    self._step, self._started, self._waited = step, time.perf_counter(), 0.0

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Counts the time inside as waiting for a batch."""
    started = time.perf_counter()
    yield
    self._waited += time.perf_counter() - started

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves the time inside out of the measurement."""
    started = time.perf_counter()
    yield
    self._started += time.perf_counter() - started

  def read(self, step: int, batch_size: int) -> dict[str, float]:
    """Returns means since the last reading, and starts a new measurement.

    Returns:
      step_seconds, examples_per_second, and input_wait: the share of the time in which
      the host waited for input. The host runs ahead of the accelerator, which waited no
      longer than that. Empty if there was no step in between.
    """
    steps, seconds = step - self._step, time.perf_counter() - self._started
    waited = self._waited
    self.restart(step)
    if not steps:
      return {}
    return {
      'step_seconds': seconds / steps,
      'examples_per_second': batch_size * steps / seconds,
      'input_wait': waited / seconds,
    }
