"""Commands restart with huge pages where the system gives them on request."""

import os
import subprocess
import sys

import pytest

from rahf.runtime import huge_pages

PROBE = """
import os, pathlib, sys
from rahf.runtime import huge_pages
huge_pages.SETTING = pathlib.Path(sys.argv[1])
print('started', os.getpid(), flush=True)
huge_pages.restart_with_them('probe')
print(os.environ.get('GLIBC_TUNABLES'), sys.argv[2:])
"""
ON_REQUEST = 'always [madvise] never'


@pytest.fixture(autouse=True)
def new_glibc(tmp_path, monkeypatch):
  setting = tmp_path / 'enabled'
  setting.write_text(ON_REQUEST)
  monkeypatch.setattr(huge_pages, 'SETTING', setting)
  if not huge_pages.given_on_request():
    pytest.skip('needs glibc 2.35 or newer')


def run(tmp_path, setting, *, command=('-m', 'probe'), tunables=None):
  """Returns the lines that the probe prints."""
  (tmp_path / 'probe.py').write_text(PROBE)
  (tmp_path / 'enabled').write_text(setting)
  environment = {k: v for k, v in os.environ.items() if k != 'GLIBC_TUNABLES'}
  environment['PYTHONPATH'] = os.pathsep.join(sys.path)
  if tunables is not None:
    environment['GLIBC_TUNABLES'] = tunables
  finished = subprocess.run(
    [sys.executable, *command, tmp_path / 'enabled', '--a=b c', ''],
    cwd=tmp_path,
    env=environment,
    capture_output=True,
    text=True,
    check=True,
  )
  return finished.stdout.splitlines()


def test_restarts_once_as_the_same_process_with_the_same_arguments(tmp_path):
  first, second, last = run(tmp_path, ON_REQUEST)
  assert first == second
  assert last == "glibc.malloc.hugetlb=1 ['--a=b c', '']"


def test_keeps_options_of_python(tmp_path):
  command = '-u', '-X', 'utf8', '-m', 'probe'
  *_, last = run(tmp_path, ON_REQUEST, command=command)
  assert last.startswith('glibc.malloc.hugetlb=1 ')


def test_keeps_other_tunables(tmp_path):
  *_, last = run(tmp_path, ON_REQUEST, tunables='glibc.malloc.check=0')
  assert last.startswith('glibc.malloc.check=0:glibc.malloc.hugetlb=1 ')


@pytest.mark.parametrize(
  'tunables', ['glibc.malloc.hugetlb=0', 'glibc.malloc.hugetlb=1']
)
def test_leaves_the_choice_to_the_user(tmp_path, tunables):
  _, last = run(tmp_path, ON_REQUEST, tunables=tunables)
  assert last.startswith(f'{tunables} ')


@pytest.mark.parametrize(
  'setting', ['[always] madvise never', 'always madvise [never]', '']
)
def test_does_nothing_where_asking_changes_nothing(tmp_path, setting):
  _, last = run(tmp_path, setting)
  assert last.startswith('None ')


@pytest.mark.parametrize('command', [('probe.py',), ('-m', 'runpy', 'probe')])
def test_does_not_restart_what_is_not_the_command(tmp_path, command):
  _, last = run(tmp_path, ON_REQUEST, command=command)
  assert last.startswith('None ')


def test_does_nothing_on_other_systems(monkeypatch, tmp_path):
  monkeypatch.setattr(huge_pages, 'SETTING', tmp_path / 'absent')
  assert not huge_pages.given_on_request()
  monkeypatch.delattr(os, 'confstr')
  assert not huge_pages.given_on_request()
