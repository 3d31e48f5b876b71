"""Fixtures: a PostgreSQL server, and a database in it for a test."""

import itertools

import postgres
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
