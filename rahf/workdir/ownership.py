"""Locks a work directory and checks its config."""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from ml_collections import ConfigDict

from rahf import config as config_lib
from rahf.errors import InputError
from rahf.fileio import atomic_write, locks, strict_json
from rahf.runtime import distributed

# Settings that may change when a run is resumed, without affecting the result.
FREE_SECTIONS = (
  *('platform', 'mesh', 'eval', 'review', 'keywords', 'precompile', 'export'),
)
FREE_FIELDS = (
  *('data.dir', 'data.max_skipped', 'data.workers'),
  *('train.log_every', 'train.checkpoint_every'),
  *('train.max_skipped', 'train.keep_checkpoints', 'train.keep_best'),
  'model.remat',
  'model.loop',
)
# Orbax writes this file into every checkpoint.
METADATA = '_CHECKPOINT_METADATA'


def check_workdir(workdir: epath.Path, config: ConfigDict) -> None:
  """Checks that a run in the directory, if any, has the same config.

  Raises:
    InputError: the directory belongs to a run with another config.
  """
  path = workdir / 'config.json'
  if not path.exists():
    return
  # Runs from before a field existed are treated as having its default.
  defaults = json.loads(config_lib.to_json(config_lib.default_config()))
  try:
    there = strict_json.read(path)
    sections = (name for name, value in defaults.items() if isinstance(value, dict))
    if not all(isinstance(there.get(name, {}), dict) for name in sections):
      raise ValueError('a section is not an object')
  except (ValueError, AttributeError) as error:
    raise InputError(
      f'{path} is damaged ({error}); copy it again, or move {workdir} away'
    ) from None
  there = _merged(defaults, there)
  here = json.loads(config_lib.to_json(config))
  if changed := config_lib.differences(_fixed(there), _fixed(here)):
    raise InputError(
      f'{workdir} holds a run with another config:\n  '
      + '\n  '.join(changed)
      + '\nchoose another --workdir, or set these fields to the values of the run'
    )


def _merged(defaults: Any, given: Any) -> Any:
  """Returns the given values, with defaults for missing ones."""
  if not (isinstance(defaults, dict) and isinstance(given, dict)):
    return given
  common = defaults.keys() & given.keys()
  return defaults | given | {k: _merged(defaults[k], given[k]) for k in common}


def claim_workdir(
  workdir: epath.Path, config: ConfigDict, started: bool
) -> contextlib.AbstractContextManager[None]:
  """Locks a work directory and writes config.json.

  Args:
    started: the result of `is_started`.

  Raises:
    InputError: another run has locked it, or started or ended since `is_started`.
  """
  return lock_folder(
    workdir, functools.partial(_write_config, workdir, config, started)
  )


@contextlib.contextmanager
def lock_folder(
  folder: epath.Path, begin: Callable[[], None] = lambda: None
) -> Iterator[None]:
  """Locks a folder for a run; the first process does so for all of them.

  Args:
    begin: called by the first process once the folder is locked; may raise.

  Raises:
    InputError: another run has locked it.
  """
  with contextlib.ExitStack() as lock:
    refusal = None
    if distributed.is_first():
      try:
        lock.enter_context(locks.locked(folder))
        begin()
      except (InputError, OSError) as error:
        refusal = error
    # Otherwise the other processes would wait for the first one.
    if distributed.any_process(refusal is not None):
      raise refusal or InputError(f'{folder}: the first process cannot write to it')
    yield


def _write_config(workdir: epath.Path, config: ConfigDict, started: bool) -> None:
  check_workdir(workdir, config)
  if is_started(workdir) != started:
    raise InputError(
      f'{workdir}: another run just started or ended there; run the command again'
    )
  # Atomic: a truncated file would prevent the run from being resumed.
  atomic_write.write(workdir / 'config.json', config_lib.to_json(config))


def is_started(workdir: epath.Path) -> bool:
  """Returns whether there is a complete checkpoint to resume from.

  It only lists files: Orbax's manager would wait for the other processes, which may
  not see the same files yet.
  """
  return bool(complete_steps(workdir))


def complete_steps(workdir: epath.Path) -> list[int]:
  """Returns the steps that have a complete checkpoint, ascending."""
  directory = workdir / 'checkpoints'
  if not directory.exists():
    return []
  steps = (step for step in directory.iterdir() if step.name.isdigit())
  return sorted(int(step.name) for step in steps if is_complete(step))


def is_complete(directory: epath.Path) -> bool:
  """Returns whether a checkpoint is complete.

  Orbax alone would accept an empty directory. In a bucket, where nothing can be
  renamed, it looks for the file that is written last.
  """
  has_metadata = (directory / METADATA).exists()
  return has_metadata and ocp.utils.is_checkpoint_finalized(directory)


def _fixed(settings: dict) -> dict:
  """Returns the settings without those that a resumed run may change."""
  kept = {k: v for k, v in settings.items() if k not in FREE_SECTIONS}
  for field in FREE_FIELDS:
    section, name = field.split('.')
    kept[section] = {k: v for k, v in kept[section].items() if k != name}
  return kept
