"""Checkpoints, numbered by step."""

import contextlib
import gc
import itertools
from collections.abc import Collection, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from rahf import distributed
from rahf.checksums import checksums
from rahf.errors import InputError
from rahf.work_directory import is_complete

_REMEDY = 'copy it again, or go on with training, which passes it over'
# In the metadata of each checkpoint; those of older versions have none.
CHECKSUMS = 'checksums'


class DamagedCheckpointError(InputError):
  """A checkpoint is not what was saved."""


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
    return max(self._complete_steps(), default=None)

  def _complete_steps(self) -> list[int]:
    steps = self._manager.all_steps()
    return [step for step in steps if is_complete(self._directory / str(step))]

  def save(self, step: int, state: Any) -> None:
    """Starts to write a checkpoint, unless it is there; training may go on meanwhile.

    Args:
      step: not smaller than those before.

    Raises:
      OSError: it cannot be written, or the one before could not.
    """
    if step == self._newest:
      return
    sums = checksums(state)
    with self._writing():
      self._save(step, state, sums)
    self._newest = step

  def _save(self, step: int, state: Any, sums: dict[str, int]) -> None:
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
      custom_metadata={CHECKSUMS: sums},
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
      InputError: none is whole, and all stay where they are; or they are of another
        model.
    """
    damaged: dict[int, InputError] = {}
    while (step := self._newest_but(damaged)) is not None:
      try:
        state = self.restore(step, abstract)
      except DamagedCheckpointError as error:
        damaged[step] = error
        continue
      for passed, error in damaged.items():
        print(f'Passed over, and moved to {self._set_aside(passed)}: {error}')
      self._newest = step
      return step, state
    reasons = '; '.join(map(str, damaged.values())) or 'there is none'
    raise InputError(
      f'{self._directory}: no checkpoint can be read: {reasons}. Copy them again, or '
      'begin anew in another --workdir'
    )

  def restore(self, step: int, abstract: Any) -> Any:
    """Reads a checkpoint straight into the shards that `abstract` describes.

    Raises:
      DamagedCheckpointError: a process cannot read it, or it is not as it was written.
      InputError: an array has another shape or dtype than expected, is missing, or
        is not known to the model.
    """
    where = self._directory / str(step)
    state, damage = None, None
    try:
      state = self._read(where, step, abstract)
    except DamagedCheckpointError as error:
      damage = error
    if distributed.any_process(damage is not None):
      raise damage or DamagedCheckpointError(f'{where}: another process cannot read it')
    kept = self._manager.metadata(step).custom_metadata or {}
    _check_sums(where, state, kept.get(CHECKSUMS))
    return state

  def _read(self, where: epath.Path, step: int, abstract: Any) -> Any:
    """Reads without waiting for others, which may be unable to."""
    options = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:
      me = jax.process_index()
      options = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f'rahf-{me}'
      )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
    with _reading(where):
      _check_arrays(where, _tree(where, self._manager.item_metadata(step)), abstract)
      with ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
        return checkpointer.restore(
          where / 'default', args=ocp.args.StandardRestore(abstract)
        )

  def _newest_but(self, passed_over: Collection[int]) -> int | None:
    """Returns the newest complete step but these, as the first process sees it."""
    steps = set(self._complete_steps()) - set(passed_over)
    found = int(distributed.from_first(max(steps, default=-1)))
    return None if found < 0 else found

  def _set_aside(self, step: int) -> epath.Path:
    """Moves a checkpoint out of the way, and returns where it is."""
    folder = self._directory.parent / 'damaged'
    names = (f'{step}-{n}' if n else f'{step}' for n in itertools.count())
    aside = next(folder / name for name in names if not (folder / name).exists())
    distributed.wait_for_all()  # Until they have seen the same.
    if distributed.is_first():
      folder.mkdir(exist_ok=True)
      (self._directory / str(step)).rename(aside)
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
    DamagedCheckpointError, InputError: as `Checkpoints.restore`.
  """
  where = epath.Path(workdir) / 'checkpoints' / str(step)
  handler = ocp.CompositeCheckpointHandler(default=ocp.PyTreeCheckpointHandler())
  with _reading(where), ocp.Checkpointer(handler) as checkpointer:
    metadata = checkpointer.metadata(where)
    stored = _tree(where, metadata.item_metadata['default'])['params']
    _check_arrays(where, stored, abstract)
    on_host = ocp.RestoreArgs(restore_type=np.ndarray)
    args = ocp.args.PyTreeRestore(
      {'params': stored},
      restore_args={'params': jax.tree.map(lambda _: on_host, abstract)},
      partial_restore=True,
    )
    found = checkpointer.restore(where, args=ocp.args.Composite(default=args))
  params = found['default']['params']
  kept = metadata.custom_metadata or {}
  _check_sums(where, {'params': params}, kept.get(CHECKSUMS))
  return params


@contextlib.contextmanager
def _reading(where: epath.Path) -> Iterator[None]:
  """Turns whatever the readers below Orbax make of spoilt bytes into one error."""
  try:
    yield
  except InputError:
    raise
  except Exception as error:
    reason = ' '.join(str(error.__cause__ or error).split())[:300]
    raise DamagedCheckpointError(
      f'{where} cannot be read ({reason}); {_REMEDY}'
    ) from None


def _tree(where: epath.Path, metadata: Any) -> Any:
  if metadata is None:
    raise DamagedCheckpointError(f'{where} is not complete; {_REMEDY}')
  return getattr(metadata, 'tree', metadata)


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
  found = checksums(state)
  changed = [path for path, value in found.items() if saved.get(path) != value]
  if changed:
    raise DamagedCheckpointError(
      f'{where}: {changed[0]} is not as it was saved, by its checksum, the first of '
      f'{len(changed)} such arrays; {_REMEDY}'
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
