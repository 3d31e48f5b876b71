"""Starts JAX on the intended hardware, or fails if it is missing.

Without a GPU or TPU, JAX falls back to the CPU, where training would take months. The
first of these decides which hardware is intended: `config.platform`, JAX_PLATFORMS, and
the hardware support that is installed.
"""

import collections
import glob
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import NamedTuple

import jax

# There is no public function for this.
from jax._src.xla_bridge import backends_are_initialized as has_started

from rahf.errors import InputError
from rahf.runtime import compilation_cache

PLATFORMS = ('cpu', 'gpu', 'tpu')
# JAX_PLATFORMS names the GPU vendor's platform.
_NAMES = {'cuda': 'gpu', 'rocm': 'gpu'}
# Files that Linux has if there is such hardware; other devices may create them too.
_FILES = {
  'gpu': ('/dev/nvidia*', '/dev/dxg', '/dev/kfd'),
  'tpu': ('/dev/accel*', '/dev/vfio/*'),
}
_ADVICE = {
  'gpu': 'check that nvidia-smi lists a GPU',
  'tpu': 'check that this is a TPU VM and that no other process uses its TPU',
}
_REMEDY = (
  'JAX_PLATFORMS=cpu in the environment (or, for rahf.main, the flag '
  '--config.platform=cpu)'
)


class Wanted(NamedTuple):
  """The hardware that a command needs.

  Attributes:
    platforms: names in PLATFORMS, one of which is needed; () if any will do.
    reason: why it is needed.
    remedy: what to set to compute on the CPU instead.
  """

  platforms: tuple[str, ...] = ()
  reason: str = ''
  remedy: str = _REMEDY


def choose(platform: str = '', *, required: bool = True) -> Wanted:
  """Configures the platform that JAX will start on, unless it has started.

  Args:
    platform: `config.platform`, one of PLATFORMS; '' leaves it to the environment.
    required: whether the command needs that hardware, or may run on a CPU instead.

  Returns:
    What `start` should check for.

  Raises:
    InputError: the machine has no such hardware.
  """
  wanted = _wanted(platform) if required else Wanted()
  if has_started():
    return wanted
  if platform == 'cpu':
    jax.config.update('jax_platforms', 'cpu')
  elif wanted.platforms and not any(map(_may_have, wanted.platforms)):
    raise _missing(wanted)
  elif not (jax.config.jax_platforms or _may_have('tpu')):
    _disable_libtpu()
  return wanted


def start(wanted: Wanted) -> str:
  """Starts JAX and returns a description of the devices of all processes.

  Compiled programs are kept from then on (`runtime/compilation_cache.py`).

  Args:
    wanted: the result of `choose`.

  Raises:
    InputError: JAX does not find the wanted hardware.
    OSError: the hardware exists, but cannot be used now.
  """
  try:
    found = jax.default_backend()
  # JAX raises AssertionError if it finds nothing at all.
  except (RuntimeError, AssertionError) as error:
    target = jax.config.jax_platforms or 'any platform'
    problem = (
      f'JAX cannot start on {target}: {error or "none found"}. To compute on the CPU '
      f'instead, set {wanted.remedy}'
    )
    if _may_have('gpu') or _may_have('tpu'):
      raise OSError(problem) from error
    raise InputError(problem) from error
  if wanted.platforms and found not in wanted.platforms:
    raise _missing(wanted)
  compilation_cache.use()
  return describe(jax.devices())


def describe(devices: Sequence[jax.Device]) -> str:
  """Counts devices by kind, as in '8 TPU v5 lite devices'."""
  kinds = collections.Counter(
    'CPU' if device.platform == 'cpu' else device.device_kind for device in devices
  )
  return ' and '.join(
    f'{count} {kind} device{"s" if count > 1 else ""}' for kind, count in kinds.items()
  )


def _wanted(platform: str) -> Wanted:
  setting = jax.config.jax_platforms
  if platform:
    limit = f' and JAX is set to use {setting}' if setting else ''
    reason = f'config.platform = {platform!r}{limit}'
    return Wanted((platform,), reason, '--config.platform=cpu')
  if setting:
    # The first platform is JAX's default; the others are optional extras.
    first = setting.split(',')[0]
    first = _NAMES.get(first, first)
    known = first in PLATFORMS
    return Wanted((first,), f'JAX is set to use {setting}') if known else Wanted()
  reasons = {}
  if _has_cuda_plugin():
    reasons['gpu'] = "JAX's plugin for NVIDIA GPUs is installed (the extra `cuda`)"
  # The extra `test` also installs libtpu, as a compiler for TPUs that are not attached.
  if _is_installed('libtpu') and not _is_installed('pytest'):
    reasons['tpu'] = 'libtpu is installed (the extra `tpu`)'
  return Wanted((*reasons,), ' and '.join(reasons.values()))


def _missing(wanted: Wanted) -> InputError:
  names = ' and no '.join(platform.upper() for platform in wanted.platforms)
  advice = ' or '.join(_ADVICE[name] for name in wanted.platforms if name in _ADVICE)
  return InputError(
    f'JAX finds no {names} here, although {wanted.reason}; {advice}. To compute on the '
    f'CPU instead, set {wanted.remedy}'
  )


def _disable_libtpu() -> None:
  """Keeps JAX from loading libtpu, which logs long warnings if there is no TPU."""
  if _is_installed('libtpu'):
    jax.config.update('jax_platforms', 'cuda,cpu' if _has_cuda_plugin() else 'cpu')


def _may_have(platform: str) -> bool:
  """Returns whether the machine may have such hardware; always True outside Linux."""
  files = _FILES.get(platform)
  return files is None or sys.platform != 'linux' or any(map(glob.glob, files))


def _has_cuda_plugin() -> bool:
  plugins = importlib.metadata.entry_points(group='jax_plugins')
  return any(plugin.name.startswith('xla_cuda') for plugin in plugins)


def _is_installed(distribution: str) -> bool:
  try:
    importlib.metadata.distribution(distribution)
  except importlib.metadata.PackageNotFoundError:
    return False
  return True
