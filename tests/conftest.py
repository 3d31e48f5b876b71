"""What all tests share: eight virtual CPU devices and the folder of real assets."""

import os
import pathlib

import pytest

# Must be set before JAX starts; mesh tests need several devices.
os.environ.setdefault('XLA_FLAGS', '--xla_force_host_platform_device_count=8')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')


@pytest.fixture(scope='session')
def assets() -> pathlib.Path:
  """The folder of goldens and real samples that RAHF_TEST_ASSETS names."""
  folder = os.environ.get('RAHF_TEST_ASSETS')
  if not folder:
    pytest.skip('needs the test assets: set RAHF_TEST_ASSETS to their folder')
  return pathlib.Path(folder)
