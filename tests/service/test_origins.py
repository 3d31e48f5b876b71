"""Requests that a browser sends on behalf of other sites' pages."""

import pytest
from starlette.datastructures import Headers

import rahf
from rahf.service.engine import Engine
from rahf.service.origins import is_foreign
from served import ask, make_image, running, write_model


@pytest.fixture(scope='module')
def port(tmp_path_factory):
  model = rahf.load(write_model(tmp_path_factory.mktemp('served')), batch_size=1)
  engine = Engine(model)
  engine.warm_up(lambda line: None)
  with running(engine) as port:
    yield port
  assert engine.stop(30)


@pytest.mark.parametrize(
  ('host', 'status'),
  [
    ('127.0.0.1', 200),
    ('localhost', 200),
    ('LOCALHOST:8000', 200),
    ('[::1]:80', 200),
    ('127.0.0.2', 200),
    ('127.0.0.1.1', 421),
    ('evil.example', 421),
    ('localhost.evil.example', 421),
    ('127.0.0.1.evil.example:8000', 421),
    ('localhost:80@evil.example', 421),
    ('', 421),
  ],
)
@pytest.mark.parametrize('path', ['/', '/health', '/openapi.json'])
def test_only_loopback_names_are_served(port, host, status, path):
  answer = ask(port, 'GET', path, Host=host)
  assert answer.status == status
  if status == 421:
    assert repr(host) in answer.json['detail']


def test_a_long_host_is_not_repeated_in_the_answer(port):
  assert len(ask(port, 'GET', '/', Host='a' * 9000).body) < 200


@pytest.mark.parametrize(
  ('headers', 'foreign'),
  [
    ({}, False),
    ({'Sec-Fetch-Site': 'same-origin'}, False),
    ({'Sec-Fetch-Site': 'none'}, False),
    ({'Sec-Fetch-Site': 'cross-site'}, True),
    ({'Sec-Fetch-Site': 'same-site'}, True),
    ({'Origin': 'http://localhost:80'}, False),
    ({'Origin': 'http://localhost:81'}, True),
    ({'Origin': 'https://evil.example'}, True),
    ({'Origin': 'null'}, True),
    ({'Origin': 'http://[::1'}, True),
    # Behind a proxy that sets its own Host.
    ({'Origin': 'https://own.example', 'Sec-Fetch-Site': 'same-origin'}, False),
  ],
)
def test_foreign_pages(headers, foreign, port):
  assert is_foreign(Headers({'Host': 'localhost:80', **headers})) is foreign
  kind = 'multipart/form-data; boundary=x'
  names = {'Host': 'localhost:80', 'Content-Type': kind, **headers}
  answer = ask(port, 'POST', '/score', make_image(), **names)
  assert answer.status == (403 if foreign else 422)
