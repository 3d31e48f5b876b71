"""Shared by all tests: eight virtual CPU devices, real assets, a small run."""

import os
import pathlib
import tempfile

import jaxtyping
import pytest

# Must be set before JAX starts; mesh tests need several devices. Tiny models take
# longer to compile than to run, so optimization does not pay off.
os.environ.setdefault(
  'XLA_FLAGS',
  '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 '
  '--xla_llvm_disable_expensive_passes=true',
)
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# As in our commands: some tests read everything that is printed.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
# Many tests run the same few programs, some in separate processes.
_COMPILED = tempfile.TemporaryDirectory(prefix='rahf-compiled-')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', _COMPILED.name)

# From here on, calls check the shapes in the signatures of these modules.
jaxtyping.install_import_hook(
  ['rahf.models', 'rahf.training.losses'], 'beartype.beartype'
)


def pytest_addoption(parser: pytest.Parser) -> None:
  """Adds the option of tests/drills; pytest only reads options from this file."""
  parser.addoption(
    '--long', action='store_true', help='tests/drills: all that are promised, hours'
  )


@pytest.fixture(scope='session')
def long(request) -> bool:
  """Whether to run all guaranteed cases."""
  return request.config.getoption('--long')


@pytest.fixture(scope='session')
def assets() -> pathlib.Path:
  """The folder of goldens and real samples, from RAHF_TEST_ASSETS."""
  folder = os.environ.get('RAHF_TEST_ASSETS')
  if not folder:
    pytest.skip('needs the test assets: set RAHF_TEST_ASSETS to their folder')
  return pathlib.Path(folder)


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory) -> pathlib.Path:
  """The folder of the generated data sets of `tiny`."""
  return tmp_path_factory.mktemp('data')


@pytest.fixture(scope='session')
def trained(data_dir, tmp_path_factory) -> pathlib.Path:
  """The work directory of `tiny`, trained for 4 steps without interruption.

  Read only: tests that write copy it first.
  """
  import runs
  import tiny

  workdir = tmp_path_factory.mktemp('trained')
  runs.run_training(tiny.get_config(data_dir), workdir)
  return workdir
