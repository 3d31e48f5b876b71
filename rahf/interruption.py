"""SIGTERM and Ctrl-C as a request that the loop answers between steps."""

import signal
from types import FrameType


class Interruption:
  """Within it, SIGTERM and SIGINT set `requested` instead of ending the process.

  A second signal ends the process at once.
  """

  requested = False

  def __enter__(self) -> 'Interruption':
    self._previous = {
      number: signal.signal(number, self._request)
      for number in (signal.SIGTERM, signal.SIGINT)
    }
    return self

  def __exit__(self, *exception) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def _request(self, number: int, frame: FrameType | None) -> None:
    self.requested = True
    signal.signal(number, signal.SIG_DFL)
