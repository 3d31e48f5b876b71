"""Who gets in: limits on what is in work at once, and on the size of bodies."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from rahf.service import origins, reading
from rahf.service.engine import Engine

# Seconds in which the rest of a refused body is read and thrown away: who is still
# sending would find the connection closed and not read the answer.
DISCARD = 2.0
RETRY = {'Retry-After': '1'}


class Limits(NamedTuple):
  """What is refused.

  Attributes:
    queue: requests waiting or computed at once; further ones get 429. Those whose
      bodies are still coming are not among them, so that slow senders keep nobody out.
      All that has come of these may be `queue` times `body` bytes.
    body: bytes of a request; larger ones get 413.
    seconds: until a body is there; slower ones get 408.
  """

  queue: int = 128
  body: int = 20 * 1024 * 1024
  seconds: float = 30.0


class Admission:
  """Lets requests in, up to the limits."""

  def __init__(self, engine: Engine, limits: Limits):
    self._engine, self._limits = engine, limits
    self._inside = self._reading = self._held = 0
    engine.measures.in_work.set_function(lambda: self._inside + self._reading)

  @contextlib.contextmanager
  def inside(self) -> Iterator[None]:
    """Counts a request in that has been read.

    Raises:
      HTTPException: 429.
    """
    if self._inside >= self._limits.queue:
      raise self._full()
    self._inside += 1
    try:
      yield
    finally:
      self._inside -= 1

  async def check(self, request: Request) -> None:
    """Refuses by what is known before the body is read.

    Raises:
      HTTPException: 403, 413, 415, 429 or 503.
    """
    if problem := self._problem(request):
      await _discard(request, request.stream())
      raise problem

  def _problem(self, request: Request) -> HTTPException | None:
    if self._engine.state != 'ready':
      return HTTPException(503, f'the service is {self._engine.state}', RETRY)
    if origins.is_foreign(request.headers):
      return HTTPException(403, 'a page of another origin may not ask')
    content_type = request.headers.get('content-type', '')
    if reading.kind(content_type) not in (reading.JSON, reading.MULTIPART):
      kinds = f'{reading.JSON} or {reading.MULTIPART}'
      return HTTPException(415, f'Content-Type is {content_type[:80]!r}; send {kinds}')
    if int(request.headers.get('content-length', 0)) > self._limits.body:
      return self._too_large()
    if self._inside >= self._limits.queue:
      return self._full()
    return None

  def _full(self) -> HTTPException:
    return HTTPException(429, f'{self._inside} requests are waiting already', RETRY)

  def _too_large(self) -> HTTPException:
    return HTTPException(413, f'more than the limit of {self._limits.body:,} bytes')

  async def read(self, request: Request) -> bytes:
    """Returns the body.

    Raises:
      HTTPException: 413 or 429 as soon as it is too much, 408, or 400.
    """
    body, stream = bytearray(), request.stream()
    self._reading += 1
    try:
      async with asyncio.timeout(self._limits.seconds):
        async for chunk in stream:
          body += chunk
          self._held += len(chunk)
          if problem := self._excess(len(body)):
            break
        else:
          return bytes(body)
    except TimeoutError:
      raise HTTPException(
        408, f'the body did not come within {self._limits.seconds:g} s'
      ) from None
    except ClientDisconnect:
      raise HTTPException(400, 'the body ends early') from None
    finally:
      self._reading -= 1
      self._held -= len(body)
      body.clear()
    await _discard(request, stream)
    raise problem

  def _excess(self, size: int) -> HTTPException | None:
    if size > self._limits.body:
      return self._too_large()
    if self._held > self._limits.queue * self._limits.body:
      return HTTPException(429, 'too much is being sent at once', RETRY)
    return None


async def _discard(request: Request, rest: AsyncIterator[bytes]) -> None:
  if 'expect' in request.headers:
    return  # The sender waits for a word before it sends.
  with contextlib.suppress(TimeoutError, ClientDisconnect):
    async with asyncio.timeout(DISCARD):
      async for _ in rest:
        pass
