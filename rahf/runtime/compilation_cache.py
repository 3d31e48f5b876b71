"""Keeps compiled programs for later processes: JAX's compilation cache, by default.

A program of minutes is compiled once, and the next training, evaluation, export or
`rahf.load` reads it. JAX's own variables override what is set here:

  JAX_COMPILATION_CACHE_DIR=DIR       another folder, or one in a bucket
  JAX_ENABLE_COMPILATION_CACHE=false  no cache
  JAX_COMPILATION_CACHE_MAX_SIZE=N    bytes; then the least recently used is deleted

Several processes may use a folder at once.
"""

import hashlib
import os
import pathlib
import platform

import jax
from absl import logging

MAX_BYTES = 10 * 2**30
# Of JAX, which would only keep what took a second; a start has many smaller programs.
LEAST_SECONDS = 0.2


def use() -> None:
  """Configures JAX to use the cache, unless it is set up or switched off already.

  JAX must have started, and should not have compiled anything.
  """
  config = jax.config
  if config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache:
    return
  folder = default_folder()
  try:
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
      raise PermissionError('it cannot be written')
  except OSError as error:
    logging.warning(
      'Compiled programs are not kept, as %s cannot be used (%s); name another folder '
      'in JAX_COMPILATION_CACHE_DIR',
      folder,
      error,
    )
    return
  config.update('jax_compilation_cache_dir', str(folder))
  if config.jax_compilation_cache_max_size == -1:
    config.update('jax_compilation_cache_max_size', MAX_BYTES)
  if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
    config.update('jax_persistent_cache_min_compile_time_secs', LEAST_SECONDS)


def default_folder() -> pathlib.Path:
  """Returns the folder for this version of JAX and this kind of machine."""
  base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path('~/.cache').expanduser()
  return pathlib.Path(base) / 'rahf' / f'compiled-{jax.__version__}-{_machine()}'


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
