"""How much memory a device has left, and whether a program fits."""

import math
import pathlib
import re

import jax

from rahf.errors import InputError

_MEMINFO = pathlib.Path('/proc/meminfo')


def free_bytes(device: jax.Device) -> float:
  """Returns the bytes that this process can still allocate; NaN if unknown.

  On GPUs, JAX reserves only a part (XLA_PYTHON_CLIENT_MEM_FRACTION). For CPUs it is
  what Linux says is available on the machine.
  """
  stats = device.memory_stats()
  if stats and 'bytes_limit' in stats:
    return stats['bytes_limit'] - stats.get('bytes_in_use', 0)
  if device.platform != 'cpu' or not _MEMINFO.exists():
    return math.nan
  found = re.search(r'MemAvailable:\s+(\d+) kB', _MEMINFO.read_text())
  return 1024 * int(found[1]) if found else math.nan


def check_program(
  program: jax.stages.Compiled, device: jax.Device, remedy: str
) -> None:
  """Raises InputError if a compiled program does not fit next to its arguments.

  Args:
    device: one of those that it was compiled for; its arguments are there already.
    remedy: what the user can do.
  """
  memory = program.memory_analysis()
  if memory is None:
    return
  check_bytes(memory.temp_size_in_bytes + memory.output_size_in_bytes, device, remedy)


def check_bytes(needed: float, device: jax.Device, remedy: str) -> None:
  """Raises InputError if a device has fewer bytes left than needed."""
  free = free_bytes(device)
  if needed > free:
    raise InputError(
      f'not enough memory: {needed / 2**30:.2f} GiB more are needed, but {device} has '
      f'{max(0, free) / 2**30:.2f} GiB left; {remedy}'
    )
