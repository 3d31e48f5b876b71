"""Checkpoints, and the right of a run to its work directory."""

import contextlib
import gc
import json
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from ml_collections import ConfigDict

from rahf import config as config_lib
from rahf import distributed, locks
from rahf.checksums import checksums
from rahf.errors import InputError

# What may change between the parts of a run without changing what is trained.
FREE_SECTIONS = ('mesh', 'eval', 'review', 'keywords', 'precompile', 'export')
FREE_FIELDS = (
  *('data.dir', 'data.max_skipped', 'train.log_every', 'train.checkpoint_every'),
  'train.max_skipped',
  'model.remat',
)
_REMEDY = 'copy it again, or go on with training, which passes it over'
# In the metadata of each checkpoint; those of older versions have none.
CHECKSUMS = 'checksums'
# What Orbax writes into every checkpoint.
METADATA = '_CHECKPOINT_METADATA'


class DamagedCheckpointError(InputError):
  """A checkpoint is not what was saved."""


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
  there = _merged(defaults, json.loads(path.read_text()))
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


@contextlib.contextmanager
def claimed(workdir: epath.Path, config: ConfigDict, started: bool) -> Iterator[None]:
  """Keeps other runs out of a work directory, and writes config.json.

  Args:
    started: what `is_started` said.

  Raises:
    InputError: another run is in there, or was since `started` was found.
  """
  if not distributed.is_first():
    yield
    return
  with locks.alone(workdir):
    check_workdir(workdir, config)
    if is_started(workdir) != started:
      raise InputError(
        f'{workdir}: another run began or ended there just now; run the command again'
      )
    # Written aside and renamed: half a file would keep the run from going on.
    aside = workdir / '.config.json.partial'
    aside.write_text(config_lib.to_json(config))
    aside.replace(workdir / 'config.json')
    yield


def is_started(workdir: epath.Path) -> bool:
  """Returns whether there is a complete checkpoint to go on from.

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
  return sorted(int(step.name) for step in steps if _is_complete(step))


def _is_complete(directory: epath.Path) -> bool:
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


class Checkpoints:
  """The numbered checkpoints of a work directory."""

  def __init__(self, workdir: epath.Path, keep: int | None = None):
    self._directory = epath.Path(workdir) / 'checkpoints'
    self._manager = ocp.CheckpointManager(
      self._directory,
      # Named, or a process that has not saved yet cannot read what there is.
      item_handlers=ocp.StandardCheckpointHandler(),
      options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
    )
    self._newest = self.latest_step()

  def latest_step(self) -> int | None:
    """Returns the step of the newest complete checkpoint, or None."""
    steps = self._manager.all_steps()
    complete = [step for step in steps if _is_complete(self._directory / str(step))]
    return max(complete, default=None)

  def save(self, step: int, state: Any) -> None:
    """Starts to write a checkpoint, unless it is there; training may go on meanwhile.

    Args:
      step: not smaller than those before.

    Raises:
      OSError: it cannot be written, or the one before could not.
    """
    if step == self._newest:
      return
    with self._writing():
      self._save(step, state)
    self._newest = step

  def _save(self, step: int, state: Any) -> None:
    there = self._directory / str(step)
    if distributed.from_first(there.exists()):
      # Incomplete, or the run would have started from it. Orbax would refuse.
      self._manager.wait_until_finished()
      if distributed.is_first():
        there.rmtree()
      distributed.wait_for_all()
      self._manager.reload()
    self._manager.save(
      step,
      args=ocp.args.StandardSave(state),
      force=True,
      custom_metadata={CHECKSUMS: checksums(state)},
    )

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Turns what Orbax raises, also of the save before, into an error of writing."""
    try:
      yield
    # TensorStore has ValueErrors for a full disk, and others for a network away.
    except Exception as error:
      reason = ' '.join(str(error).split())[:300]
    else:
      return
    # What is left of the failed save would complain when the process ends.
    gc.collect()
    raise OSError(
      f'{self._directory}: a checkpoint cannot be written ({reason}); make room or '
      'whatever it needs, the same command goes on from the checkpoint before'
    )

  def restore_newest(self, abstract: Any) -> tuple[int, Any]:
    """Reads the newest checkpoint that is whole; returns its step and content.

    Damaged ones are said, and moved aside: they would count among those to keep, and
    the whole one might be deleted for them.

    Raises:
      InputError: none is whole, or they are of another model.
    """
    step = self.latest_step()
    while step is not None:
      try:
        return step, self._restore_everywhere(step, abstract)
      except DamagedCheckpointError as error:
        aside = self._set_aside(step)
        print(f'Passed over, and moved to {aside}: {error}')
        damaged = error
      step = self._newest = self.latest_step()
    raise InputError(
      f'{self._directory}: no checkpoint can be read ({damaged}); copy them again, or '
      'begin anew in another --workdir'
    )

  def restore(self, step: int, abstract: Any) -> Any:
    """Reads a checkpoint straight into the shards that `abstract` describes.

    Raises:
      DamagedCheckpointError: it cannot be read, or not as it was written.
      InputError: an array has another shape or dtype than expected, is missing, or
        is not known to the model.
    """
    where = self._directory / str(step)
    try:
      stored = self._manager.item_metadata(step)
      if stored is None:
        raise DamagedCheckpointError(f'{where} is not complete; {_REMEDY}')
      _check_arrays(where, getattr(stored, 'tree', stored), abstract)
      state = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
      kept = self._manager.metadata(step).custom_metadata or {}
    except InputError:
      raise
    # Whatever the readers below Orbax make of spoilt bytes.
    except Exception as error:
      reason = ' '.join(str(error.__cause__ or error).split())[:300]
      raise DamagedCheckpointError(
        f'{where} cannot be read ({reason}); {_REMEDY}'
      ) from None
    _check_sums(where, state, kept.get(CHECKSUMS))
    return state

  def _restore_everywhere(self, step: int, abstract: Any) -> Any:
    """Restores in all processes, or fails in all."""
    state, damage = None, None
    try:
      state = self.restore(step, abstract)
    except DamagedCheckpointError as error:
      damage = error
    if distributed.any_process(damage is not None):
      where = self._directory / str(step)
      raise damage or DamagedCheckpointError(f'{where} is damaged for another process')
    return state

  def _set_aside(self, step: int) -> epath.Path:
    there = self._directory / str(step)
    aside = self._directory.parent / 'damaged' / str(step)
    if distributed.is_first():
      if aside.exists():
        aside.rmtree()
      aside.parent.mkdir(exist_ok=True)
      there.rename(aside)
    distributed.wait_for_all()
    self._manager.reload()
    return aside

  def close(self) -> None:
    """Waits for what is being written.

    Raises:
      OSError: it could not be written.
    """
    with self._writing():
      self._manager.wait_until_finished()
    self._manager.close()


def read_params(workdir: epath.Path, step: int, abstract: Any) -> Any:
  """Reads a checkpoint's parameters alone, to arrays of NumPy on the host.

  Args:
    abstract: their shapes and dtypes.

  Raises:
    InputError: as `Checkpoints.restore`.
  """
  where = epath.Path(workdir) / 'checkpoints' / str(step)
  handler = ocp.CompositeCheckpointHandler(default=ocp.PyTreeCheckpointHandler())
  with ocp.Checkpointer(handler) as checkpointer:
    stored = checkpointer.metadata(where).item_metadata['default'].tree['params']
    _check_arrays(where, stored, abstract)
    on_host = ocp.RestoreArgs(restore_type=np.ndarray)
    args = ocp.args.PyTreeRestore(
      {'params': stored},
      restore_args={'params': jax.tree.map(lambda _: on_host, abstract)},
      partial_restore=True,
    )
    found = checkpointer.restore(where, args=ocp.args.Composite(default=args))
    kept = checkpointer.metadata(where).custom_metadata or {}
    params = found['default']['params']
    _check_sums(where, {'params': params}, kept.get(CHECKSUMS))
    return params


def _check_arrays(where: epath.Path, stored: Any, abstract: Any) -> None:
  expected, found = _describe(abstract), _describe(stored)
  for path in sorted(expected.keys() | found.keys()):
    if expected.get(path) != found.get(path):
      raise InputError(
        f'{where}: {path} is {found.get(path, "missing")}, but the model has '
        f'{expected.get(path, "no such array")}; was it written with another config?'
      )


def _check_sums(where: epath.Path, state: Any, saved: dict[str, int] | None) -> None:
  if saved is None:
    return
  changed = [path for path, value in checksums(state).items() if saved[path] != value]
  if changed:
    raise DamagedCheckpointError(
      f'{where}: {changed[0]} is not as it was saved (checksum), nor are '
      f'{len(changed) - 1} other arrays; {_REMEDY}'
    )


def _describe(tree: Any) -> dict[str, str]:
  """Maps the path of each array to its dtype and shape in words."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    _path_name(path): f'{np.dtype(leaf.dtype).name}{list(leaf.shape)}'
    for path, leaf in leaves
  }


def _path_name(path: tuple) -> str:
  """Names a leaf alike for attributes, keys and indices, as Orbax stores them."""
  return jax.tree_util.keystr(path, simple=True, separator='/')
