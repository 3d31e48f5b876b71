"""Serves a project, and talks to it as a page does."""

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn

from rahf.annotation.app import make_app
from rahf.annotation.guard import Access
from rahf.annotation.project import Project
from rahf.service.connection import Connection


@contextlib.contextmanager
def running(project: Project, access: Access | None = None) -> Iterator[int]:
  """Serves from a thread; yields the port."""
  config = uvicorn.Config(
    make_app(project, access or Access()),
    http=Connection,
    ws='none',
    # Uvicorn's own would close absl's log, which here is what pytest captures.
    log_config=None,
    log_level='warning',
    lifespan='off',
  )
  server = uvicorn.Server(config)
  with socket.create_server(('127.0.0.1', 0), backlog=256) as listener:
    thread = threading.Thread(target=server.run, kwargs={'sockets': [listener]})
    thread.start()
    try:
      yield listener.getsockname()[1]
    finally:
      server.should_exit = True
      thread.join(20)
  assert not thread.is_alive()


class Page:
  """A page of one annotator: keeps the session, and sends what a page sends."""

  def __init__(self, port: int, **enter: str):
    """Enters with a name or a token; without either, has no session."""
    self.port, self.cookie, self.csrf = port, '', ''
    self.headers: dict[str, str] = {}
    if enter:
      status, answer = self.send('/api/enter', enter)
      assert status == 200, answer
      self.csrf = self._read_csrf(answer['next'])

  def get(self, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
    with contextlib.closing(connection):
      connection.request('GET', path, headers=self._all_headers())
      response = connection.getresponse()
      self.headers = dict(response.headers)
      return response.status, response.read()

  def json(self, path: str) -> dict:
    status, body = self.get(path)
    assert status == 200, body
    return json.loads(body)

  def send(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    """Posts JSON; underscores in header names become hyphens."""
    connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
    named = {name.replace('_', '-'): value for name, value in headers.items()}
    with contextlib.closing(connection):
      connection.request(
        'POST',
        path,
        json.dumps(body),
        self._all_headers() | {'Content-Type': 'application/json'} | named,
      )
      response = connection.getresponse()
      self.headers = dict(response.headers)
      if cookie := response.headers.get('Set-Cookie'):
        self.cookie = cookie.partition(';')[0]
      return response.status, json.loads(response.read())

  def _all_headers(self) -> dict[str, str]:
    cookie = {'Cookie': self.cookie} if self.cookie else {}
    return cookie | ({'X-CSRF-Token': self.csrf} if self.csrf else {})

  def _read_csrf(self, path: str) -> str:
    status, body = self.get(path)
    assert status == 200
    text = body.decode().partition('id="data">')[2].partition('</script>')[0]
    return json.loads(text).get('csrf', '')
