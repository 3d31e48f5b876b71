"""Closes HTTP connections whose request headers do not arrive in time."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
  """Uvicorn's connection with a time limit for headers; Uvicorn itself has none.

  Attributes:
    seconds: time for the headers, counted from the connection or from the first bytes
      of a later request; after that the connection is closed.
  """

  seconds = 30.0
  _timer: asyncio.TimerHandle | None = None

  def connection_made(self, transport: Any) -> None:
    """Starts the timer."""
    super().connection_made(transport)
    self._start()

  def data_received(self, data: bytes) -> None:
    """Stops the timer when the headers are complete."""
    super().data_received(data)
    if self.conn.their_state is not h11.IDLE:
      self._stop()
    elif self._timer is None:
      self._start()

  def connection_lost(self, error: Exception | None) -> None:
    """Stops the timer."""
    self._stop()
    super().connection_lost(error)

  def _unsupported_upgrade_warning(self) -> None:
    """Logs nothing, since some clients offer HTTP/2 with every request."""

  def _start(self) -> None:
    self._timer = self.loop.call_later(self.seconds, self.transport.close)

  def _stop(self) -> None:
    if self._timer is not None:
      self._timer.cancel()
    self._timer = None
