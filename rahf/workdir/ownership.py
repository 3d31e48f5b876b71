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

# What may change between the parts of a run without changing what is trained.
FREE_SECTIONS = (
  *('platform', 'mesh', 'eval', 'review', 'keywords', 'precompile', 'export'),
)
FREE_FIELDS = (
  *('data.dir', 'data.max_skipped', 'train.log_every', 'train.checkpoint_every'),
  *('train.max_skipped', 'train.keep_checkpoints', 'train.keep_best'),
  'model.remat',
)
# What Orbax writes into every checkpoint.
METADATA = '_CHECKPOINT_METADATA'


def check_workdir(workdir: epath.Path, config: ConfigDict) -> None:
  """Checks that a run in the directory, if there is one, has the same config.

  Raises:
    InputError: the directory belongs to a run with another config.
  """
  path = workdir / 'config.json'
  if not path.exists():
    return
  # A field that was not there yet had the value that is now its default.
  defaults = json.loads(config_lib.to_json(config_lib.default_config()))
  try:
    there = strict_json.read(path)
    sections = (name for name, value in defaults.items() if isinstance(value, dict))
    if not all(isinstance(there.get(name, {}), dict) for name in sections):
      raise ValueError('a section is something else')
  except (ValueError, AttributeError) as error:
    raise InputError(
      f'{path} is damaged ({error}); copy it again, or take {workdir} out of the way'
    ) from None
  there = _merged(defaults, there)
  here = json.loads(config_lib.to_json(config))
  if changed := config_lib.differences(_fixed(there), _fixed(here)):
    raise InputError(
      f'{workdir} holds a run with another config:\n  '
      + '\n  '.join(changed)
      + '\nchoose another --workdir, or set these fields as they are there'
    )


def _merged(defaults: Any, given: Any) -> Any:
  """Returns what is given, and the defaults of what is not."""
  if not (isinstance(defaults, dict) and isinstance(given, dict)):
    return given
  common = defaults.keys() & given.keys()
  return defaults | given | {k: _merged(defaults[k], given[k]) for k in common}


def claim_workdir(
  workdir: epath.Path, config: ConfigDict, started: bool
) -> contextlib.AbstractContextManager[None]:
  """Keeps other runs out of a work directory, and writes config.json.

  Args:
    started: what `is_started` said.

  Raises:
    InputError: another run is in there, or was since `started` was found.
  """
  return lock_folder(
    workdir, functools.partial(_write_config, workdir, config, started)
  )


@contextlib.contextmanager
def lock_folder(
  folder: epath.Path, begin: Callable[[], None] = lambda: None
) -> Iterator[None]:
  """Keeps other runs out of a folder; the first process locks it for all of a run.

  Args:
    begin: called by the first as soon as it has the folder; may raise.

  Raises:
    InputError: another run has it.
  """
  with contextlib.ExitStack() as lock:
    refusal = None
    if distributed.is_first():
      try:
        lock.enter_context(locks.locked(folder))
        begin()
      except (InputError, OSError) as error:
        refusal = error
    # The others would wait for the first.
    if distributed.any_process(refusal is not None):
      raise refusal or InputError(f'{folder}: the first process may not write there')
    yield


def _write_config(workdir: epath.Path, config: ConfigDict, started: bool) -> None:
  check_workdir(workdir, config)
  if is_started(workdir) != started:
    raise InputError(
      f'{workdir}: another run began or ended there just now; run the command again'
    )
  # Half a file would keep the run from going on.
  atomic_write.write(workdir / 'config.json', config_lib.to_json(config))


def is_started(workdir: epath.Path) -> bool:
  """Returns whether there is a complete checkpoint to continue from.

  It only looks: Orbax's manager would wait for the other processes, which may not
  find the same yet.
  """
  return bool(complete_steps(workdir))


def complete_steps(workdir: epath.Path) -> list[int]:
  """Returns the steps with a complete checkpoint, ascending; it only looks."""
  directory = workdir / 'checkpoints'
  if not directory.exists():
    return []
  steps = (step for step in directory.iterdir() if step.name.isdigit())
  return sorted(int(step.name) for step in steps if is_complete(step))


def is_complete(directory: epath.Path) -> bool:
  """Returns whether Orbax has finished a checkpoint.

  It takes an empty directory for one; in a bucket, where nothing can be renamed, it
  looks for a file that is written last.
  """
  there = (directory / METADATA).exists()
  return there and ocp.utils.is_checkpoint_finalized(directory)


def _fixed(settings: dict) -> dict:
  """Returns the settings without those that a resumed run may change."""
  kept = {k: v for k, v in settings.items() if k not in FREE_SECTIONS}
  for field in FREE_FIELDS:
    section, name = field.split('.')
    kept[section] = {k: v for k, v in kept[section].items() if k != name}
  return kept
