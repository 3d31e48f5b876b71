"""Drills take longer with --long: all that are promised, not a sample."""

import pytest


@pytest.fixture(scope='session')
def long(request) -> bool:
  """Whether to do as many as are promised."""
  return request.config.getoption('--long')
