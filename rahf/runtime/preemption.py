"""SIGTERM and Ctrl-C as a request that the training loop checks between steps."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType


class Interrupted(BaseException):
  """The process was asked to end. No error: `except Exception` lets it pass."""


class Interruption:
  """Within it, SIGTERM and SIGINT set `requested` instead of ending the process.

  A second signal ends the process at once. SIGALRM is in use as well.
  """

  requested = False
  _raises = False

  def __enter__(self) -> 'Interruption':
    handlers = {
      signal.SIGTERM: self._request,
      signal.SIGINT: self._request,
      signal.SIGALRM: self._raise_if_it_may,
    }
    self._previous = {n: signal.signal(n, handler) for n, handler in handlers.items()}
    return self

  def __exit__(self, *exception) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
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
    hook = sys.unraisablehook
    sys.unraisablehook = self._raise_later(hook)
    try:
      self.check()
      yield
    finally:
      self._raises = False
      sys.unraisablehook = hook

  def _raise_later(self, hook: Callable) -> Callable:
    """Returns a hook that has Interrupted raised again, when the caller is done.

    A signal may come while the garbage collector runs a callback, as JAX has one, or a
    finalizer: Python prints what is raised there, and goes on.
    """

    def again(unraisable) -> None:
      if unraisable.exc_type is not Interrupted:
        return hook(unraisable)
      signal.setitimer(signal.ITIMER_REAL, 0.01)

    return again

  def _request(self, number: int, frame: FrameType | None) -> None:
    self.requested = True
    signal.signal(number, signal.SIG_DFL)
    self._raise_if_it_may()

  def _raise_if_it_may(self, *_) -> None:
    if self._raises:
      raise Interrupted
