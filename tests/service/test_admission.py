"""Admission: large and slow bodies, full queues, clients that disconnect."""

import base64
import functools
import gzip
import http.client
import json
import socket

from rahf.service.admission import Limits
from rahf.service.engine import Engine
from served import (
  Gate,
  ask,
  ask_json,
  make_image,
  read_metrics,
  running,
  together,
  wait_until,
)


def test_a_large_body_is_refused_before_it_is_read(port):
  with socket.create_connection(('127.0.0.1', port), timeout=30) as connection:
    connection.sendall(
      b'POST /score HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\n'
      b'Content-Length: 9999999999\r\n\r\n{'
    )
    assert connection.recv(99).startswith(b'HTTP/1.1 413')


def test_a_large_body_of_unknown_length_is_refused_while_it_arrives(port):
  def endless():
    for _ in range(40):
      yield b'x' * 10_000

  answer = ask(port, 'POST', '/score', endless(), Content_Type='application/json')
  assert answer.status == 413
  assert answer.json == {'detail': 'the body is larger than the limit of 300,000 bytes'}


def test_compressed_bodies_are_refused(port):
  body = gzip.compress(b'{"image": "", "prompt": "a"}')
  for coding, status in (('gzip', 415), ('gzip, identity', 415), ('Identity', 422)):
    headers = {'Content-Type': 'application/json', 'Content-Encoding': coding}
    answer = ask(port, 'POST', '/score', body, **headers)
    assert answer.status == status
    if status == 415:
      assert answer.headers['Accept-Encoding'] == 'identity'
      assert answer.json['detail'].startswith(f"Content-Encoding is '{coding}'; send")


def test_fields_in_the_query_are_refused(port):
  answer = ask(
    port, 'POST', '/score?maps=false', b'{}', Content_Type='application/json'
  )
  assert answer.status == 422
  assert answer.json['detail'].startswith('the query is not read')


def test_a_trailing_slash(port):
  body = {'image': base64.b64encode(make_image()).decode(), 'prompt': 'a'}
  for path, status in (('/score/', 200), ('/health/', 307)):
    method = 'POST' if path == '/score/' else 'GET'
    kind = 'application/json'
    answer = ask(port, method, path, json.dumps(body), Content_Type=kind)
    assert answer.status == status


def test_a_full_queue_and_slow_bodies(engine, monkeypatch):
  with running(engine, Limits(queue=2, seconds=0.3)) as port:
    gate = Gate(engine, monkeypatch)
    call = functools.partial(ask_json, port, make_image())
    futures = together(call, call)
    wait_until(lambda: engine.metrics.exposition().count(b'requests_in_work 2.0'))
    answer = call()
    assert answer.status == 429
    assert int(answer.headers['Retry-After']) > 0
    assert answer.json == {'detail': '2 requests are already waiting'}
    gate.open()
    assert [future.result(60).status for future in futures] == [200, 200]
    assert call().status == 200
    headers = {'Content-Type': 'application/json', 'Content-Length': '10'}
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30)
    connection.request('POST', '/score', '{', headers)
    assert connection.getresponse().status == 408
    connection.close()


def begin(port: int, text: bytes, length: int) -> socket.socket:
  """Sends a request whose body is incomplete."""
  connection = socket.create_connection(('127.0.0.1', port), timeout=30)
  connection.sendall(
    b'POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
    b'Content-Length: %d\r\n\r\n%s' % (length, text)
  )
  return connection


def in_work(engine: Engine, number: int) -> bool:
  return b'requests_in_work %.1f' % number in engine.metrics.exposition()


def test_slow_senders_block_nobody(engine):
  with running(engine, Limits(queue=1)) as port:
    slow = [begin(port, b'{', 10) for _ in range(5)]
    wait_until(lambda: in_work(engine, 5))
    assert ask_json(port, make_image()).status == 200
    for connection in slow:
      connection.close()
    wait_until(lambda: in_work(engine, 0))


def test_incoming_bodies_are_bounded(engine):
  with running(engine, Limits(queue=2, body=10_000)) as port:
    slow = [begin(port, b'x' * 9_000, 10_000) for _ in range(2)]
    wait_until(lambda: in_work(engine, 2))
    answer = ask_json(port, make_image())
    assert (answer.status, answer.json['detail']) == (
      429,
      'too much data is being sent at once',
    )
    for connection in slow:
      connection.close()
    wait_until(lambda: in_work(engine, 0))
    assert ask_json(port, make_image()).status == 200


def test_requests_of_disconnected_clients_are_dropped(engine, monkeypatch):
  with running(engine) as port:
    gate = Gate(engine, monkeypatch)
    (first,) = together(functools.partial(ask_json, port, make_image()))
    wait_until(lambda: gate.sizes == [1])
    body = json.dumps({'image': base64.b64encode(make_image()).decode(), 'prompt': 'a'})
    left = begin(port, body.encode(), len(body))
    wait_until(lambda: engine._batcher.waiting == 1)
    left.close()
    wait_until(lambda: in_work(engine, 1))
    gate.open()
    assert first.result(60).status == 200
    wait_until(lambda: engine._batcher.waiting == 0)
    assert ask_json(port, make_image()).status == 200
    assert gate.sizes == [1, 1]
    assert read_metrics(port)['rahf_requests_total499'] >= 1
