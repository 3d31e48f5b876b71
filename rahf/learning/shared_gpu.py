"""Shares a GPU with another program, such as a trainer in PyTorch.

JAX reserves three quarters of every GPU's memory when it starts, at the first
computation of a process or when its devices are asked for. It can be told otherwise
before, not after.
"""

import functools
import os
import re
import sys
import warnings
from typing import Any

import jax

from rahf.errors import InputError
from rahf.runtime import accelerator

PREALLOCATE = 'XLA_PYTHON_CLIENT_PREALLOCATE'
# JAX refuses both at once; the second is the older name.
FRACTIONS = ('XLA_CLIENT_MEM_FRACTION', 'XLA_PYTHON_CLIENT_MEM_FRACTION')
TOO_LATE = (
  'JAX had started before and may hold three quarters of the memory of every GPU '
  f'already, which nothing gives back. Set {PREALLOCATE}=false in the environment, or '
  'make the reward before anything else uses JAX'
)


def open_beside(device: Any, memory_fraction: float) -> jax.Device:
  """Returns a device for a model that leaves memory and other GPUs to its neighbour.

  Where JAX has not started, this process will not preallocate, and will take at most
  `memory_fraction` of a GPU's memory, unless the environment has settings of its own
  (XLA_PYTHON_CLIENT_PREALLOCATE, XLA_CLIENT_MEM_FRACTION). With 'cpu', JAX will not
  open a GPU at all in this process; with 'cuda:1', that one only. Where JAX has
  started, nothing of this can be changed: a warning says so if it has GPUs. The first
  line on stderr says which device it is.

  Args:
    device: 'cpu', 'cuda', 'cuda:1', 'tpu', also as a torch.device, or None for the
      first that JAX has; that is a CPU only where JAX was installed for nothing else,
      or is set to it.
    memory_fraction: of a GPU, in (0, 1].

  Raises:
    InputError: there is no such device, or no such fraction.
    OSError: the GPU or TPU cannot be used now.
  """
  if not 0 < memory_fraction <= 1:
    raise InputError(f'memory_fraction = {memory_fraction} is not in (0, 1]')
  platform, number = _parse(device)
  if accelerator.has_started():
    _warn_if_preallocated()
  else:
    os.environ.setdefault(PREALLOCATE, 'false')
    if not any(name in os.environ for name in FRACTIONS):
      os.environ[FRACTIONS[0]] = str(memory_fraction)
    if platform == 'cpu':
      jax.config.update('jax_platforms', 'cpu')
    elif platform == 'cuda' and number is not None:
      # Or every process of a trainer would open all GPUs.
      jax.config.update('jax_cuda_visible_devices', str(number))
  try:
    accelerator.start(accelerator.choose(required=platform is None))
  except InputError as error:
    raise InputError(f"{error}; or give the reward device='cpu'") from error
  found = _find(platform, number)
  memory, name = '', found
  if found.platform == 'gpu':
    limit = next((os.environ[name] for name in FRACTIONS if name in os.environ), '0.75')
    memory = f', with at most {limit} of its memory'
  elif found.platform == 'cpu':
    name = 'the CPU'
  _say_once(f'The reward is on {name}{memory}')
  return found


@functools.cache
def _say_once(message: str) -> None:
  # Into the trainer's log, whatever its loggers let through.
  print(message, file=sys.stderr, flush=True)


def _parse(device: Any) -> tuple[str | None, int | None]:
  if device is None:
    return None, None
  parts = re.fullmatch(r'(cpu|cuda|gpu|tpu)(?::(\d+))?', str(device))
  if not parts:
    raise InputError(
      f"device = {str(device)!r} is not one of 'cpu', 'cuda', 'cuda:1', …"
    )
  platform = 'cuda' if parts[1] == 'gpu' else parts[1]
  return platform, None if parts[2] is None else int(parts[2])


def _warn_if_preallocated() -> None:
  told = os.environ.get(PREALLOCATE, '') in ('false', 'False', '0')
  if jax.default_backend() == 'gpu' and not told:
    warnings.warn(TOO_LATE, stacklevel=4)


def _find(platform: str | None, number: int | None) -> jax.Device:
  try:
    devices = jax.local_devices(backend=platform)
  except RuntimeError:
    raise InputError(
      f'JAX has no {platform} here, only {jax.default_backend()}; for NVIDIA GPUs '
      "install rahf[cuda], or compute with device='cpu'"
    ) from None
  # Numbers of the machine, also where JAX sees some of its GPUs only.
  fitting = [d for d in devices if number in (None, d.local_hardware_id)]
  if not fitting:
    numbers = [d.local_hardware_id for d in devices]
    raise InputError(f'JAX sees no {platform}:{number}; it sees {platform} {numbers}')
  return fitting[0]
