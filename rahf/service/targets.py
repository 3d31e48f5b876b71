"""Handles request forms that the router does not know: absolute targets and HEAD."""

import re
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

_ABSOLUTE = re.compile(rb'https?://([^/]*)(/.*)?', re.IGNORECASE)


class Targets:
  """Serves absolute-form targets, and HEAD for every GET route.

  A client that treats the service as a proxy sends GET http://host/path. The host in
  the target then replaces the Host header (RFC 9112, section 3.2.2). HEAD is answered
  like GET; the server omits the body.
  """

  def __init__(self, app: ASGIApp):
    self._app = app

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Handles a request."""
    if scope['type'] == 'http':
      if absolute := _ABSOLUTE.fullmatch(scope['raw_path']):
        scope = _in_origin_form(scope, absolute[1], absolute[2] or b'/')
      if scope['method'] == 'HEAD':
        scope = {**scope, 'method': 'GET'}
    await self._app(scope, receive, send)


def _in_origin_form(scope: Scope, host: bytes, path: bytes) -> Scope:
  others = [(name, value) for name, value in scope['headers'] if name != b'host']
  return {
    **scope,
    'path': unquote(path.decode('ascii')),
    'raw_path': path,
    'headers': [(b'host', host), *others],
  }
