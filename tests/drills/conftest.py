"""Option --long: runs all guaranteed cases instead of a sample."""

import pytest


@pytest.fixture(scope='session')
def long(request) -> bool:
  """Whether to run all guaranteed cases."""
  return request.config.getoption('--long')
