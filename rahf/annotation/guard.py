"""Checks that every request passes before the app sees it, and headers of all answers.

A request must name this server in its Host, come from a page of this server if it
changes anything, and have a small JSON body or none.
"""

import time
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rahf.errors import InputError
from rahf.service.origins import LOOPBACK, is_foreign

MAX_BODY = 256 * 1024
SAFE_METHODS = ('GET', 'HEAD')
# That need not be written.
PORTS = {'http': 80, 'https': 443}
HEADERS = {
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Permissions-Policy': 'camera=(), geolocation=(), microphone=()',
}
# Buckets that are full again say nothing and are dropped once there are this many.
_MANY = 10_000


class Access(NamedTuple):
  """Who may use the server.

  Attributes:
    public: https://… or http://… under which people reach it, without a path; '' for a
      server that only this machine can reach, where a name is enough to enter.
  """

  public: str = ''

  @property
  def secure(self) -> bool:
    """Whether people use HTTPS."""
    return self.public.startswith('https://')

  def serves(self, host: str) -> bool:
    """Returns whether a Host header names this server."""
    if not self.public:
      return bool(LOOPBACK.fullmatch(host))
    return host.lower() == urlsplit(self.public).netloc.lower()


def check_public(url: str) -> str:
  """Returns the address that people use, without a slash at its end.

  Raises:
    InputError: it is not an http or https address, or has a path.
  """
  try:
    found = urlsplit(url)
    port, host = found.port, (found.hostname or '').encode('idna').decode()
    usable = found.scheme in PORTS and host and found.username is None
  except ValueError:
    usable = False
  if not usable or found.path.strip('/') or found.query or found.fragment:
    raise InputError(
      f'--public={url} is not an address such as https://annotate.example.org'
    )
  # As browsers write it in their Host header.
  host = f'[{host}]' if ':' in host else host
  port = '' if port in (None, PORTS[found.scheme]) else f':{port}'
  return f'{found.scheme}://{host}{port}'


class Guard:
  """Refuses requests that browsers of other sites or strangers could send."""

  def __init__(self, app: ASGIApp, access: Access):
    self._app, self._access = app, access

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Handles a request."""
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return

    async def send_with_headers(message: Message) -> None:
      if message['type'] == 'http.response.start':
        headers = MutableHeaders(scope=message)
        for name, value in HEADERS.items():
          headers[name] = value
        headers.setdefault('Cache-Control', 'no-store')
        headers.setdefault('Content-Security-Policy', "default-src 'none'")
      await send(message)

    problem = self._problem(scope)
    answer = JSONResponse({'detail': problem[1]}, problem[0]) if problem else self._app
    await answer(scope, receive, send_with_headers)

  def _problem(self, scope: Scope) -> tuple[int, str] | None:
    headers = Headers(scope=scope)
    host = headers.get('host', '')
    if not self._access.serves(host):
      address = self._access.public or 'it as 127.0.0.1 or localhost'
      return 421, f'{host[:80]!r} is not the address of this server; open {address}'
    if scope['method'] in SAFE_METHODS:
      return None
    if is_foreign(headers):
      return 403, 'the request comes from a page of another site'
    if headers.get('content-type', '').partition(';')[0] != 'application/json':
      return 415, 'the body is not application/json'
    # Without a length, a body could be of any size.
    length = headers.get('content-length', '')
    if not length.isdecimal() or 'transfer-encoding' in headers:
      return 411, 'the request has no Content-Length'
    if int(length) > MAX_BODY:
      return 413, f'the body has more than {MAX_BODY} bytes'
    return None


class Rates:
  """Limits how often something happens: a bucket for each key refills over time."""

  def __init__(self, burst: int, per_second: float):
    """Starts with full buckets.

    Args:
      burst: size of a bucket.
      per_second: what flows back.
    """
    self._burst, self._per_second = burst, per_second
    self._buckets: dict[str, tuple[float, float]] = {}

  def take(self, key: str) -> bool:
    """Returns whether it may happen once more."""
    now = time.monotonic()
    if len(self._buckets) >= _MANY:
      self._drop(now)
    left = self._left(key, now)
    allowed = left >= 1
    self._buckets[key] = left - allowed, now
    return allowed

  def is_empty(self, key: str) -> bool:
    """Returns whether it may not happen now."""
    return self._left(key, time.monotonic()) < 1

  def _left(self, key: str, now: float) -> float:
    left, since = self._buckets.get(key, (self._burst, now))
    return min(self._burst, left + (now - since) * self._per_second)

  def _drop(self, now: float) -> None:
    full: Iterable[str] = [
      key for key in self._buckets if self._left(key, now) >= self._burst
    ]
    for key in full:
      del self._buckets[key]
