"""Keeps compiled programs for later processes: JAX's compilation cache, by default.

A program of minutes is compiled once, and the next training, evaluation, export or
`rahf.load` reads it. JAX's own variables override what is set here:

  JAX_COMPILATION_CACHE_DIR=DIR       another folder, or one in a bucket
  JAX_ENABLE_COMPILATION_CACHE=false  no cache
  JAX_COMPILATION_CACHE_MAX_SIZE=N    bytes; then the least recently used is deleted

Several processes may use a folder at once. With several hosts, only one of them writes,
so there is no default: name a folder that all of them share.
"""

import hashlib
import os
import pathlib
import platform
import time

import jax
from absl import logging

MAX_BYTES = 10 * 2**30
# Of JAX, which would only keep what took a second; a start has many smaller programs.
LEAST_SECONDS = 0.2
# Another process may just be writing a program that is younger.
UNFINISHED_SECONDS = 60


def use() -> None:
  """Configures JAX to use the cache, unless it is set up or switched off already.

  JAX must have started, and should not have compiled anything.
  """
  config = jax.config
  if config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache:
    return
  if jax.process_count() > 1:
    return
  try:
    folder = default_folder()
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
      raise PermissionError(f'{folder} cannot be written')
    _remove_unfinished(folder)
  # RuntimeError: the user has no home folder.
  except (OSError, RuntimeError) as error:
    logging.warning(
      'Compiled programs are not kept (%s); name another folder in '
      'JAX_COMPILATION_CACHE_DIR',
      error,
    )
    return
  config.update('jax_compilation_cache_dir', str(folder))
  if 'JAX_COMPILATION_CACHE_MAX_SIZE' not in os.environ:
    config.update('jax_compilation_cache_max_size', MAX_BYTES)
  if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
    config.update('jax_persistent_cache_min_compile_time_secs', LEAST_SECONDS)


def default_folder() -> pathlib.Path:
  """Returns the folder for this version of JAX and this kind of machine."""
  base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path('~/.cache').expanduser()
  return pathlib.Path(base) / 'rahf' / f'compiled-{jax.__version__}-{_machine()}'


def _remove_unfinished(folder: pathlib.Path) -> None:
  """Removes programs whose process was killed before it wrote when they were used.

  JAX cannot delete old programs while there is one of them.
  """
  for path in folder.glob('*-cache'):
    used = path.with_name(f'{path.name.removesuffix("-cache")}-atime')
    if not used.exists() and time.time() - path.stat().st_mtime > UNFINISHED_SECONDS:
      path.unlink(missing_ok=True)


def _machine() -> str:
  """Returns a digest of the processor's instructions.

  Machines that share a home need not have the same ones, and a program for others
  would be killed.
  """
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:  # Not Linux.
    lines = []
  flags = next((line for line in lines if line.startswith(('flags', 'Features'))), '')
  text = f'{platform.system()} {platform.machine()} {" ".join(sorted(flags.split()))}'
  return hashlib.sha256(text.encode()).hexdigest()[:12]
