"""Whose pages may ask: a browser would send requests for any page that it has open."""

import re
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = re.compile(r'(localhost|127\.0\.0\.1|\[::1\])(:\d+)?', re.IGNORECASE)


class LoopbackHosts:
  """Answers 421 where the Host is not this machine.

  A page elsewhere can give its own name this machine's address, and is then of the
  same origin to a browser (DNS rebinding).
  """

  def __init__(self, app: ASGIApp):
    self._app = app

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Is called for each connection."""
    answer = self._app
    if scope['type'] == 'http':
      host = Headers(scope=scope).get('host', '')
      if not LOOPBACK.fullmatch(host):
        detail = (
          f'Host is {host[:80]!r}; only localhost, 127.0.0.1 and [::1] are served'
        )
        answer = JSONResponse({'detail': detail}, 421)
    await answer(scope, receive, send)


def is_foreign(headers: Headers) -> bool:
  """Returns whether a page of another origin sent the request.

  Sec-Fetch-Site is decisive: a proxy that changes the Host leaves it. Without it an
  Origin must be that of the Host. Programs send neither.
  """
  if site := headers.get('sec-fetch-site'):
    return site not in ('same-origin', 'none')
  origin = headers.get('origin')
  return origin is not None and urlsplit(origin).netloc != headers.get('host')
