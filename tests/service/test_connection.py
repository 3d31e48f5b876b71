"""Connections whose headers do not arrive in time are closed."""

import contextlib
import socket
import time

import pytest

import rahf
from rahf.service.connection import Connection
from rahf.service.engine import Engine
from served import running, write_model

REQUEST = b'GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n'


class Impatient(Connection):
  """A connection with a short time limit, for tests."""

  seconds = 0.5


@pytest.fixture(scope='module')
def port(tmp_path_factory):
  engine = Engine(rahf.load(write_model(tmp_path_factory.mktemp('served'))))
  with running(engine, http=Impatient) as port:
    yield port
  assert engine.stop(30)


@pytest.fixture
def connection(port):
  with socket.create_connection(('127.0.0.1', port), timeout=10) as connection:
    yield connection


def trickle(connection: socket.socket) -> None:
  """Sends headers that never end, until the connection is closed."""
  end = time.monotonic() + 10
  with contextlib.suppress(ConnectionError):
    while time.monotonic() < end:
      connection.sendall(b'a: b\r\n')
      time.sleep(0.05)
  assert time.monotonic() < end


def test_no_request_at_all(connection):
  assert connection.recv(1) == b''


def test_a_slow_first_request(connection):
  connection.sendall(REQUEST[:-2])
  trickle(connection)


def test_a_slow_later_request(connection):
  connection.sendall(REQUEST)
  assert connection.recv(9999).startswith(b'HTTP/1.1 503')
  connection.sendall(REQUEST[:-2])
  trickle(connection)


def test_protocol_upgrade_offers_are_not_logged(connection, caplog):
  for offer in ('h2c', 'websocket'):
    lines = f'Connection: Upgrade\r\nUpgrade: {offer}\r\n\r\n'.encode()
    connection.sendall(REQUEST[:-2] + lines)
    assert connection.recv(9999).startswith(b'HTTP/1.1 503')
  assert not [record for record in caplog.records if record.name == 'uvicorn.error']


def test_an_idle_connection_stays_open(connection):
  for _ in range(2):
    connection.sendall(REQUEST)
    assert connection.recv(9999).startswith(b'HTTP/1.1 503')
    time.sleep(1)
