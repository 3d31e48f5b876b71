"""Shares a GPU with another program, such as a trainer in PyTorch.

JAX starts at a process's first computation or request for devices, and then reserves
three quarters of every GPU's memory. This can be changed only before it starts.
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
# JAX refuses to have both set; the second is the older name.
FRACTIONS = ('XLA_CLIENT_MEM_FRACTION', 'XLA_PYTHON_CLIENT_MEM_FRACTION')
TOO_LATE = (
  'JAX has already started and may hold three quarters of the memory of every GPU '
  f'until this process ends. Set {PREALLOCATE}=false in the environment, or make the '
  'reward before anything else uses JAX'
)


def open_shared(device: Any, memory_fraction: float) -> jax.Device:
  """Returns a device, and limits what JAX takes of the GPUs.

  If JAX has not started, this process will not preallocate, and will use at most
  `memory_fraction` of a GPU's memory, unless XLA_PYTHON_CLIENT_PREALLOCATE or
  XLA_CLIENT_MEM_FRACTION are set in the environment. With 'cpu', JAX will open no GPU
  in this process; with 'cuda:1', only that one. If JAX has started, none of this can
  be changed; if it has GPUs, a warning says so. The device is printed once on stderr.

  Args:
    device: 'cpu', 'cuda', 'cuda:1', 'tpu', also as a torch.device, or None for the
      first that JAX has. None gives a CPU only if JAX was installed for CPUs or is set
      to use them.
    memory_fraction: share of the GPU's memory, in (0, 1].

  Raises:
    InputError: there is no such device, or the fraction is out of range.
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
      # Otherwise every process of a trainer would open all GPUs.
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
  _print_once(f'The reward is on {name}{memory}')
  return found


@functools.cache
def _print_once(message: str) -> None:
  # Not logged: the trainer's loggers may be set to drop it.
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
  disabled = os.environ.get(PREALLOCATE, '') in ('false', 'False', '0')
  if jax.default_backend() == 'gpu' and not disabled:
    warnings.warn(TOO_LATE, stacklevel=4)


def _find(platform: str | None, number: int | None) -> jax.Device:
  try:
    devices = jax.local_devices(backend=platform)
  except RuntimeError:
    raise InputError(
      f'JAX has no {platform} here, only {jax.default_backend()}; for NVIDIA GPUs '
      "install rahf[cuda], or compute with device='cpu'"
    ) from None
  # The machine's numbers, even if JAX sees only some of its GPUs.
  fitting = [d for d in devices if number in (None, d.local_hardware_id)]
  if not fitting:
    numbers = [d.local_hardware_id for d in devices]
    raise InputError(f'JAX sees no {platform}:{number}; it sees {platform} {numbers}')
  return fitting[0]
