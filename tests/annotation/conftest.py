"""Fixtures: a PostgreSQL server, and a database in it for a test."""

import itertools

import postgres
import projects
import pytest

_NUMBERS = itertools.count()


@pytest.fixture(scope='session')
def postgres_urls():
  if postgres.binaries() is None:
    pytest.skip('needs a PostgreSQL server (Debian: postgresql)')
  with postgres.running() as urls:
    yield urls


@pytest.fixture
def postgres_url(postgres_urls) -> str:
  return postgres.create(postgres_urls, f'test{next(_NUMBERS)}')


@pytest.fixture
def in_file(tmp_path):
  found = projects.make(tmp_path, 3)
  yield found
  found.store.close()


@pytest.fixture(params=['sqlite', 'postgresql'])
def made(request, tmp_path):
  """A project in a store of each kind."""
  if request.param == 'sqlite':
    yield request.getfixturevalue('in_file')
    return
  found = projects.make(tmp_path, 3, url=request.getfixturevalue('postgres_url'))
  yield found
  found.store.close()
