"""Starts JAX on the hardware that a command is meant for, or says that it is missing.

JAX alone falls back to the CPU where it finds no GPU or TPU, and training would take
months there. A command is meant for the first of these that says anything:
`config.platform`, JAX_PLATFORMS, and what JAX was installed for.
"""

import collections
import glob
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import NamedTuple

import jax

# Whether JAX has started; it has no public name.
from jax._src.xla_bridge import backends_are_initialized as has_started

from rahf.errors import InputError

PLATFORMS = ('cpu', 'gpu', 'tpu')
# JAX_PLATFORMS names the makers of GPUs.
_NAMES = {'cuda': 'gpu', 'rocm': 'gpu'}
# What Linux has where such hardware is; other devices may have these names too.
_FILES = {
  'gpu': ('/dev/nvidia*', '/dev/dxg', '/dev/kfd'),
  'tpu': ('/dev/accel*', '/dev/vfio/*'),
}
_ADVICE = {
  'gpu': 'check that nvidia-smi lists a GPU',
  'tpu': 'check that this is a TPU VM and that no other process uses its TPU',
}
_REMEDY = 'JAX_PLATFORMS=cpu in the environment (or the flag --config.platform=cpu)'


class Wanted(NamedTuple):
  """The hardware that a command is meant for.

  Attributes:
    platforms: of PLATFORMS, one of which is needed; () if any will do.
    reason: what says so.
    remedy: what to set to compute on the CPU instead.
  """

  platforms: tuple[str, ...] = ()
  reason: str = ''
  remedy: str = _REMEDY


def choose(platform: str = '', *, required: bool = True) -> Wanted:
  """Tells JAX what to start on, unless it has started, and returns what is wanted.

  Args:
    platform: `config.platform`, one of PLATFORMS; '' leaves it to the environment.
    required: whether the command needs that hardware; else it may run on a CPU.

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
    _leave_libtpu_alone()
  return wanted


def start(wanted: Wanted) -> str:
  """Starts JAX and describes what it runs on, the devices of all processes.

  Args:
    wanted: what `choose` returned.

  Raises:
    InputError: JAX does not find what is wanted.
    OSError: the hardware is there, but cannot be used now.
  """
  try:
    found = jax.default_backend()
  # JAX asserts that it has found anything.
  except (RuntimeError, AssertionError) as error:
    told = jax.config.jax_platforms or 'what it finds'
    problem = (
      f'JAX does not start on {told}: {error or "there is none"}. To compute on the '
      f'CPU instead, set {wanted.remedy}'
    )
    if _may_have('gpu') or _may_have('tpu'):
      raise OSError(problem) from error
    raise InputError(problem) from error
  if wanted.platforms and found not in wanted.platforms:
    raise _missing(wanted)
  return describe(jax.devices())


def describe(devices: Sequence[jax.Device]) -> str:
  """Returns how many there are of which kind, such as '8 TPU v5 lite devices'."""
  kinds = collections.Counter(
    'CPU' if device.platform == 'cpu' else device.device_kind for device in devices
  )
  return ' and '.join(
    f'{count} {kind} device{"s" if count > 1 else ""}' for kind, count in kinds.items()
  )


def _wanted(platform: str) -> Wanted:
  told = jax.config.jax_platforms
  if platform:
    limit = f' and JAX is set to use {told}' if told else ''
    reason = f'config.platform = {platform!r}{limit}'
    return Wanted((platform,), reason, '--config.platform=cpu')
  if told:
    # Those after it are only there to be used as well.
    first = told.split(',')[0]
    first = _NAMES.get(first, first)
    known = first in PLATFORMS
    return Wanted((first,), f'JAX is set to use {told}') if known else Wanted()
  reasons = {}
  if _has_cuda_plugin():
    reasons['gpu'] = "JAX's plugin for NVIDIA GPUs is installed (the extra `cuda`)"
  # The extra `test` brings libtpu too, to compile for TPUs that are not there.
  if _is_installed('libtpu') and not _is_installed('pytest'):
    reasons['tpu'] = 'libtpu is installed (the extra `tpu`)'
  return Wanted((*reasons,), ' and '.join(reasons.values()))


def _missing(wanted: Wanted) -> InputError:
  names = ' and no '.join(platform.upper() for platform in wanted.platforms)
  advice = ' or '.join(_ADVICE[name] for name in wanted.platforms if name in _ADVICE)
  return InputError(
    f'JAX finds no {names} here, though {wanted.reason}; {advice}. To compute on the '
    f'CPU instead, set {wanted.remedy}'
  )


def _leave_libtpu_alone() -> None:
  """Keeps JAX from loading libtpu, which complains at length where no TPU is."""
  if _is_installed('libtpu'):
    jax.config.update('jax_platforms', 'cuda,cpu' if _has_cuda_plugin() else 'cpu')


def _may_have(platform: str) -> bool:
  """Returns whether the machine may have such hardware; only Linux tells."""
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
