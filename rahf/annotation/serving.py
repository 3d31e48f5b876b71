"""Runs the server of a project until it is stopped."""

import contextlib
import pathlib
import signal
import socket
from collections.abc import Iterator
from types import FrameType

import uvicorn

from rahf.annotation import people
from rahf.annotation.app import make_app
from rahf.annotation.database import Database
from rahf.annotation.guard import Access
from rahf.annotation.project import Project
from rahf.fileio import locks
from rahf.service.connection import Connection
from rahf.service.listening import address_of

# Longer than the usual 60 seconds of proxies.
KEEP_ALIVE = 75
GRACE = 10


@contextlib.contextmanager
def one_server(store: Database) -> Iterator[None]:
  """Lets no second server use the same SQLite file; PostgreSQL may have several.

  Raises:
    InputError: there is one already.
  """
  if not store.is_sqlite:
    yield
    return
  assert store.engine.url.database
  with locks.locked(pathlib.Path(store.engine.url.database).absolute().parent):
    yield


def run(project: Project, listener: socket.socket, access: Access) -> None:
  """Serves until SIGTERM or Ctrl-C; finishes the requests that have begun."""
  config = uvicorn.Config(
    make_app(project, access),
    http=Connection,
    ws='none',
    log_level='warning',
    lifespan='off',
    # What a proxy says about clients; from other machines it is not trusted.
    proxy_headers=bool(access.public),
    forwarded_allow_ips='127.0.0.1',
    server_header=False,
    timeout_graceful_shutdown=GRACE,
    timeout_keep_alive=KEEP_ALIVE,
  )
  server = uvicorn.Server(config)

  def shut_down(number: int, frame: FrameType | None) -> None:
    server.force_exit = server.should_exit and number == signal.SIGINT
    server.should_exit = True

  # While it runs, Uvicorn installs this as its signal handler.
  server.handle_exit = shut_down
  address = access.public or address_of(listener)
  token = people.invite(project.store, people.OWNER, people.ADMIN)
  print(f'Dashboard, for you alone: {address}/join#{token}', flush=True)
  print(f'Ready: {address}', flush=True)
  server.run(sockets=[listener])
  print('Stopped', flush=True)
