"""Limits the number, size and duration of requests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from rahf.service import origins, reading
from rahf.service.engine import Engine

# Seconds for reading and discarding the rest of a refused body: a client that is still
# sending when the connection closes would never read the answer.
DISCARD = 2.0
RETRY = {'Retry-After': '1'}


class Limits(NamedTuple):
  """Limits beyond which requests are refused.

  Attributes:
    queue: requests that may wait or be computed at once; more get 429. Requests whose
      bodies are still arriving do not count, so that slow clients block nobody. Their
      bodies may take `queue` times `body` bytes in total.
    body: bytes in a request; larger ones get 413.
    seconds: time for a body to arrive; slower ones get 408.
  """

  queue: int = 128
  body: int = 20 * 1024 * 1024
  seconds: float = 30.0


class Admission:
  """Admits requests up to the limits."""

  def __init__(self, engine: Engine, limits: Limits):
    self._engine, self._limits = engine, limits
    self._admitted = self._reading = self._buffered = 0
    engine.metrics.in_work.set_function(lambda: self._admitted + self._reading)

  @contextlib.contextmanager
  def admitted(self) -> Iterator[None]:
    """Counts a request as admitted while it is processed.

    Raises:
      HTTPException: 429.
    """
    if self._admitted >= self._limits.queue:
      raise self._full()
    self._admitted += 1
    try:
      yield
    finally:
      self._admitted -= 1

  async def check(self, request: Request) -> None:
    """Refuses requests that the headers alone show to be unacceptable.

    Raises:
      HTTPException: 403, 413, 415, 422, 429 or 503.
    """
    if problem := self._problem(request):
      await _discard(request, request.stream())
      raise problem

  def _problem(self, request: Request) -> HTTPException | None:
    if self._engine.state != 'ready':
      return HTTPException(503, f'the service is {self._engine.state}', RETRY)
    if origins.is_foreign(request.headers):
      return HTTPException(403, 'pages from other origins may not use this service')
    if request.scope['query_string']:
      return HTTPException(422, 'the query is not read; send all fields in the body')
    coding = request.headers.get('content-encoding', 'identity')
    if coding.strip().lower() != 'identity':
      return HTTPException(
        415,
        f'Content-Encoding is {coding[:80]!r}; send the body uncompressed',
        {'Accept-Encoding': 'identity'},
      )
    content_type = request.headers.get('content-type', '')
    if reading.kind(content_type) not in (reading.JSON, reading.MULTIPART):
      kinds = f'{reading.JSON} or {reading.MULTIPART}'
      return HTTPException(415, f'Content-Type is {content_type[:80]!r}; send {kinds}')
    if int(request.headers.get('content-length', 0)) > self._limits.body:
      return self._too_large()
    if self._admitted >= self._limits.queue:
      return self._full()
    return None

  def _full(self) -> HTTPException:
    return HTTPException(429, f'{self._admitted} requests are already waiting', RETRY)

  def _too_large(self) -> HTTPException:
    return HTTPException(
      413, f'the body is larger than the limit of {self._limits.body:,} bytes'
    )

  async def read(self, request: Request) -> bytes:
    """Reads the body.

    Raises:
      HTTPException: 413 or 429 as soon as it is too large, 408 if it takes too long,
        400 if it ends early.
    """
    body, stream = bytearray(), request.stream()
    self._reading += 1
    try:
      async with asyncio.timeout(self._limits.seconds):
        async for chunk in stream:
          body += chunk
          self._buffered += len(chunk)
          if problem := self._excess(len(body)):
            break
        else:
          return bytes(body)
    except TimeoutError:
      raise HTTPException(
        408, f'the body did not arrive within {self._limits.seconds:g} s'
      ) from None
    except ClientDisconnect:
      raise HTTPException(400, 'the body ends early') from None
    finally:
      self._reading -= 1
      self._buffered -= len(body)
      body.clear()
    await _discard(request, stream)
    raise problem

  def _excess(self, size: int) -> HTTPException | None:
    if size > self._limits.body:
      return self._too_large()
    if self._buffered > self._limits.queue * self._limits.body:
      return HTTPException(429, 'too much data is being sent at once', RETRY)
    return None


async def _discard(request: Request, rest: AsyncIterator[bytes]) -> None:
  if 'expect' in request.headers:
    return  # The client waits for 100 Continue before sending the body.
  with contextlib.suppress(TimeoutError, ClientDisconnect):
    async with asyncio.timeout(DISCARD):
      async for _ in rest:
        pass
