"""Lets JAX share a GPU with another program, such as a PyTorch trainer.

When JAX starts, at the first computation of a process or when its devices are listed,
it reserves three quarters of every GPU's memory. Settings must be made before that.
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
  'JAX has already started and may have reserved three quarters of the memory of every '
  f'GPU for good. Set {PREALLOCATE}=false in the environment, or create the reward '
  'before anything else uses JAX'
)


def open_shared(device: Any, memory_fraction: float) -> jax.Device:
  """Returns a device for a model, leaving memory and other GPUs to other programs.

  If JAX has not started, it will not preallocate and will use at most
  `memory_fraction` of a GPU's memory, unless the environment says otherwise
  (XLA_PYTHON_CLIENT_PREALLOCATE, XLA_CLIENT_MEM_FRACTION). With 'cpu', JAX will not
  open any GPU in this process; with 'cuda:1', only that one. If JAX has started, none
  of this can be changed; if it has GPUs, there is a warning. The chosen device is
  printed to stderr.

  Args:
    device: 'cpu', 'cuda', 'cuda:1', 'tpu', or a torch.device. None: JAX's first device;
      a CPU only if JAX was installed without other support, or is set to use it.
    memory_fraction: of a GPU, in (0, 1].

  Raises:
    InputError: the device does not exist, or the fraction is out of range.
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
    raise InputError(f"{error}; or create the reward with device='cpu'") from error
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
  # Printed, so that it reaches the trainer's log whatever its log level.
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
      "install rahf[cuda], or use device='cpu'"
    ) from None
  # The machine's own numbering, even if JAX sees only some of its GPUs.
  fitting = [d for d in devices if number in (None, d.local_hardware_id)]
  if not fitting:
    numbers = [d.local_hardware_id for d in devices]
    raise InputError(f'JAX sees no {platform}:{number}; it sees {platform} {numbers}')
  return fitting[0]
