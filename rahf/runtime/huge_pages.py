"""Huge pages for large allocations, which make steps on CPUs faster.

A step allocates its temporaries anew, 196 MiB in the quickstart, and Linux fills each
page with zeros when it is first used. Huge pages are 2 MiB instead of 4 KiB, so that
this happens far less often. Many systems give them only to those who ask.
"""

import os
import pathlib
import sys

TUNABLE = 'glibc.malloc.hugetlb'
# For example 'always [madvise] never'; 'madvise' means on request.
SETTING = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')
# The first glibc that can ask for them.
GLIBC = 2, 35


def restart_with_them(module: str) -> None:
  """Restarts a command `python -m MODULE ...` so that glibc asks for huge pages.

  glibc reads its settings only when a process starts. The process keeps its id, its
  arguments and its open files. Nothing happens where the system does not give huge
  pages on request, where `GLIBC_TUNABLES` decides about them already, as after the
  restart, and in processes that were started in another way, such as notebooks.

  Args:
    module: name of the module that runs as a command.
  """
  tunables = os.environ.get('GLIBC_TUNABLES', '')
  if TUNABLE in tunables or not _is_command(module) or not given_on_request():
    return
  os.environ['GLIBC_TUNABLES'] = ':'.join(filter(None, [tunables, f'{TUNABLE}=1']))
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _is_command(module: str) -> bool:
  """Returns whether this process was started with `python [OPTIONS] -m MODULE`."""
  _, *options = sys.orig_argv
  return '-m' in options and options[options.index('-m') + 1] == module


def given_on_request() -> bool:
  """Returns whether the system gives huge pages on request, and glibc can ask."""
  try:
    name, version = os.confstr('CS_GNU_LIBC_VERSION').split()
    known = name == 'glibc' and tuple(map(int, version.split('.'))) >= GLIBC
    return known and '[madvise]' in SETTING.read_text()
  except (AttributeError, OSError, ValueError):
    return False  # Not Linux, or not with glibc.
