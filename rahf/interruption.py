"""SIGTERM and Ctrl-C as a request that the loop answers between steps."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Interrupted(BaseException):
  """The process was asked to end. No error: `except Exception` lets it pass."""


class Interruption:
  """Within it, SIGTERM and SIGINT set `requested` instead of ending the process.

  A second signal ends the process at once.
  """

  requested = False
  _raises = False

  def __enter__(self) -> 'Interruption':
    self._previous = {
      number: signal.signal(number, self._request)
      for number in (signal.SIGTERM, signal.SIGINT)
    }
    return self

  def __exit__(self, *exception) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def check(self) -> None:
    """Raises Interrupted if a signal has come."""
    if self.requested:
      raise Interrupted

  @contextlib.contextmanager
  def raising(self) -> Iterator[None]:
    """Within it a signal raises Interrupted at once: for work that nothing depends on.

    Raises:
      Interrupted: a signal comes, or has come before.
    """
    self._raises = True
    try:
      self.check()
      yield
    finally:
      self._raises = False

  def _request(self, number: int, frame: FrameType | None) -> None:
    self.requested = True
    signal.signal(number, signal.SIG_DFL)
    if self._raises:
      raise Interrupted
