"""The option --long, which runs all drills that are promised, not a sample."""

import pytest


@pytest.fixture(scope='session')
def long(request) -> bool:
  """Whether to run all drills that are promised."""
  return request.config.getoption('--long')
