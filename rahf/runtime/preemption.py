"""Turns SIGTERM and Ctrl-C into a request that the training loop polls."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType


class Interrupted(BaseException):
  """The process was asked to stop. Not an Exception, so generic handlers ignore it."""


class Interruption:
  """Inside this context, SIGTERM and SIGINT set `requested` instead of killing.

  A second signal kills the process at once. SIGALRM is used internally.
  """

  requested = False
  _raises = False

  def __enter__(self) -> 'Interruption':
    handlers = {
      signal.SIGTERM: self._request,
      signal.SIGINT: self._request,
      signal.SIGALRM: self._raise_if_allowed,
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
    """Inside this context, a signal raises Interrupted at once.

    For work that can be abandoned at any point.

    Raises:
      Interrupted: a signal comes, or came before.
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
    """Returns an unraisable hook that raises Interrupted again a moment later.

    A signal may arrive in a callback of the garbage collector (JAX has one) or in a
    finalizer, where Python prints exceptions and continues.
    """

    def again(unraisable) -> None:
      if unraisable.exc_type is not Interrupted:
        return hook(unraisable)
      signal.setitimer(signal.ITIMER_REAL, 0.01)

    return again

  def _request(self, number: int, frame: FrameType | None) -> None:
    self.requested = True
    signal.signal(number, signal.SIG_DFL)
    self._raise_if_allowed()

  def _raise_if_allowed(self, *_) -> None:
    if self._raises:
      raise Interrupted
