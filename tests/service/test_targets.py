"""HEAD requests, and targets with a host."""

import http.client
import socket

import pytest
from prometheus_client.parser import text_string_to_metric_families

from served import ask, make_image


def exchange(port: int, request: str) -> tuple[int, bytes]:
  """Sends a raw request; returns the status and the body."""
  with socket.create_connection(('127.0.0.1', port), timeout=30) as connection:
    connection.sendall(request.encode())
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, response.read()


@pytest.mark.parametrize('path', ['/', '/health', '/metrics', '/docs', '/openapi.json'])
def test_head_is_get_without_the_body(port, path):
  got, head = (ask(port, method, path) for method in ('GET', 'HEAD'))
  assert (got.status, head.status) == (200, 200)
  assert (len(got.body) > 0, len(head.body)) == (True, 0)
  assert head.headers['Content-Type'] == got.headers['Content-Type']
  if path != '/metrics':  # They change between requests.
    assert int(head.headers['Content-Length']) == len(got.body)


def test_head_where_there_is_no_get(port):
  answer = ask(port, 'HEAD', '/score')
  assert (answer.status, answer.headers['Allow']) == (405, 'POST')


@pytest.mark.parametrize('target', ['http://{}/health', 'HTTP://{}/%68ealth?a=b'])
@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost:8000', '[::1]:1'])
def test_targets_with_a_loopback_host(port, target, host):
  request = f'GET {target.format(host)} HTTP/1.1\r\nHost: evil.example\r\n\r\n'
  status, body = exchange(port, request)
  assert (status, b'"ready"' in body) == (200, True)


@pytest.mark.parametrize(
  'host', ['evil.example', 'localhost@evil.example', 'localhost.evil.example', '[', '']
)
def test_targets_with_another_host_are_refused(port, host):
  request = f'GET http://{host}/health HTTP/1.1\r\nHost: localhost\r\n\r\n'
  status, body = exchange(port, request)
  assert (status, f'Host is {host!r}'.encode() in body) == (421, True)


@pytest.mark.parametrize('target', ['http://localhost', 'http://localhost/'])
def test_a_target_without_a_path_is_the_root(port, target):
  status, body = exchange(port, f'GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n')
  assert (status, body[:15]) == (200, b'<!doctype html>')


def test_the_origin_must_be_the_host_of_the_target(port):
  for origin, status in (('http://localhost:80', 422), ('http://evil.example', 403)):
    answer = ask(
      *(port, 'POST', 'http://localhost:80/score', make_image()),
      **{'Host': 'evil.example', 'Origin': origin},
      Content_Type='multipart/form-data; boundary=x',
    )
    assert answer.status == status


def test_a_proxy_s_health_check_without_a_host(port):
  """HAProxy sends this by default."""
  status, body = exchange(port, 'GET /metrics HTTP/1.0\r\n\r\n')
  assert status == 200
  assert [*text_string_to_metric_families(body.decode())]
