"""Blocks requests from pages of other sites, which browsers would send here too."""

import re
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = re.compile(r'(localhost|127(\.\d+){3}|\[::1\])(:\d+)?', re.IGNORECASE)


class LoopbackHosts:
  """Answers 421 unless the Host is a loopback name.

  Prevents DNS rebinding: a site can point its own name to this machine, and browsers
  then treat the service as part of that site's origin.
  """

  def __init__(self, app: ASGIApp):
    self._app = app

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Handles a request."""
    answer = self._app
    if scope['type'] == 'http':
      host = Headers(scope=scope).get('host')
      # HTTP/1.0 clients may omit it; browsers never do.
      if host is not None and not LOOPBACK.fullmatch(host):
        detail = (
          f'Host is {host[:80]!r}; only localhost, 127.0.0.1 and [::1] are served'
        )
        answer = JSONResponse({'detail': detail}, 421)
    await answer(scope, receive, send)


def is_foreign(headers: Headers) -> bool:
  """Returns whether a page from another origin sent the request.

  If Sec-Fetch-Site is present it decides, since proxies that change the Host do not
  change it. Otherwise the Origin must match the Host. Programs send neither.
  """
  if site := headers.get('sec-fetch-site'):
    return site not in ('same-origin', 'none')
  origin = headers.get('origin')
  try:
    return origin is not None and urlsplit(origin).netloc != headers.get('host')
  except ValueError:  # No URL at all, such as http://[::1
    return True
