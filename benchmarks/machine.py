"""Describes the machine that a benchmark runs on."""

import os
import pathlib
import platform


def processor() -> str:
  """Returns the number of cores, and the CPU's name if known."""
  information = pathlib.Path('/proc/cpuinfo')
  lines = information.read_text().splitlines() if information.exists() else []
  names = [line.split(':')[1].strip() for line in lines if 'model name' in line]
  return f'{os.cpu_count()} cores of {names[0] if names else platform.machine()}'


def accelerator() -> str:
  """Returns JAX's devices and version."""
  import jax

  kind, count = jax.devices()[0].device_kind, jax.device_count()
  return f'{count} JAX device{"s"[: count != 1]} ({kind}), JAX {jax.__version__}'
