"""Saves and restores the checkpoints of a run."""

import contextlib
import gc
import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from rahf.errors import InputError
from rahf.runtime import distributed
from rahf.workdir import checkpoint_integrity
from rahf.workdir.checkpoint_integrity import DamagedCheckpointError
from rahf.workdir.ownership import METADATA, is_complete

# Replicas share the writing of arrays of at least this size. Each shape and share needs
# its own compiled program, and the first save waits for all of them.
SHARED_BYTES = 4 * 2**20
ARRAYS = ocp.type_handlers.create_type_handler_registry(
  (
    jax.Array,
    ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=SHARED_BYTES),
  )
)


class Checkpoints:
  """The checkpoints of a work directory, numbered by step.

  Raises:
    InputError: this version of Orbax cannot read the metadata of a checkpoint.
  """

  def __init__(self, workdir: epath.Path, keep: int | None = None):
    self._directory = epath.Path(workdir) / 'checkpoints'
    self._keep = _Keep(self._directory, keep)
    options = ocp.CheckpointManagerOptions(preservation_policy=self._keep, create=True)
    # Given explicitly, since a process that has not saved yet could not read otherwise.
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=ARRAYS)
    try:
      self._manager = ocp.CheckpointManager(
        self._directory, item_handlers=handler, options=options
      )
    except ValueError as error:  # It reads the metadata of all checkpoints.
      raise InputError(
        f'{self._directory}: a {METADATA} cannot be read ({error}); if a newer '
        f'orbax-checkpoint than {ocp.__version__} wrote it, update yours, or move that '
        'checkpoint away'
      ) from None
    self._newest = self.latest_step()

  def latest_step(self) -> int | None:
    """Returns the step of the newest complete checkpoint, or None."""
    return max(self._complete_steps(), default=None)

  def _complete_steps(self) -> list[int]:
    steps = self._manager.all_steps()
    return [step for step in steps if is_complete(self._directory / str(step))]

  def save(self, step: int, state: Any, best: int | None = None) -> None:
    """Starts writing a checkpoint unless it exists; training may continue meanwhile.

    Once it is complete, old checkpoints are deleted.

    Args:
      step: at least that of earlier checkpoints.
      state: a tree of JAX arrays.
      best: a step whose checkpoint is kept regardless of age.

    Raises:
      OSError: it, or the previous checkpoint, could not be written.
    """
    if step == self._newest:
      return
    self._keep.always = {step, best}
    custom_metadata = checkpoint_integrity.metadata(state)
    with self._writing():
      self._save(step, state, custom_metadata)
    self._newest = step

  def _save(self, step: int, state: Any, custom_metadata: dict) -> None:
    path = self._directory / str(step)
    if distributed.from_first(path.exists()):
      # It is incomplete, or the run would have resumed from it. Orbax would refuse.
      self._manager.wait_until_finished()
      if distributed.is_first():
        path.rmtree()
      distributed.wait_for_all()
      self._manager.reload()
    self._manager.save(
      step,
      args=ocp.args.PyTreeSave(state),
      force=True,
      custom_metadata=custom_metadata,
    )

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Turns errors of Orbax, including those of the previous save, into OSError."""
    try:
      yield
    # TensorStore raises ValueError for a full disk, and others if the network is down.
    except Exception as error:
      reason = ' '.join(str(error).split())[:300]
    else:
      return
    # Otherwise what is left of the failed save prints errors when the process exits.
    gc.collect()
    raise OSError(
      f'{self._directory}: a checkpoint cannot be written ({reason}); fix the cause, '
      'such as a full disk, and run the same command to continue from the previous '
      'checkpoint'
    )

  def restore_newest(self, abstract: Any) -> tuple[int, Any]:
    """Reads the newest intact checkpoint; returns its step and content.

    Damaged checkpoints are reported and moved away: otherwise they would count towards
    the number to keep, and an intact one might be deleted instead.

    Raises:
      InputError: none is intact, and all stay in place; or they belong to another
        model.
    """
    damaged: dict[int, InputError] = {}
    while (step := self._newest_except(damaged)) is not None:
      try:
        state = self.restore(step, abstract)
      except DamagedCheckpointError as error:
        damaged[step] = error
        continue
      for bad_step, error in damaged.items():
        print(f'Moved a damaged checkpoint to {self._move_away(bad_step)}: {error}')
      self._newest = step
      return step, state
    reasons = '; '.join(map(str, damaged.values())) or 'there is none'
    raise InputError(
      f'{self._directory}: no checkpoint can be read: {reasons}. Copy them again, or '
      'start over in another --workdir'
    )

  def restore(self, step: int, abstract: Any) -> Any:
    """Reads a checkpoint straight into the shards that `abstract` describes.

    Raises:
      DamagedCheckpointError: a process cannot read it, or its content has changed.
      InputError: a newer version wrote it; or an array is missing, unknown to the
        model, or of another shape or dtype.
    """
    path = self._directory / str(step)
    saved, state, damage = {}, None, None
    try:
      saved = checkpoint_integrity.read_arrays(path)
      state = self._read(path, step, abstract, saved)
    except DamagedCheckpointError as error:
      damage = error
    if distributed.any_process(damage is not None):
      raise damage or DamagedCheckpointError(f'{path}: another process cannot read it')
    checkpoint_integrity.check_sums(path, state, saved)
    return state

  def _read(
    self,
    path: epath.Path,
    step: int,
    abstract: Any,
    saved: checkpoint_integrity.Arrays,
  ) -> Any:
    """Reads without waiting for other processes, which may be unable to."""
    options = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:
      me = jax.process_index()
      options = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f'rahf-{me}'
      )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
    with checkpoint_integrity.wrapped_errors(path):
      stored = checkpoint_integrity.tree(path, self._manager.item_metadata(step))
      checkpoint_integrity.check_arrays(path, stored, abstract, saved)
      with ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
        return checkpointer.restore(
          path / 'default', args=ocp.args.StandardRestore(abstract)
        )

  def _newest_except(self, excluded: Collection[int]) -> int | None:
    """Returns the newest other complete step, as seen by the first process."""
    steps = set(self._complete_steps()) - set(excluded)
    found = int(distributed.from_first(max(steps, default=-1)))
    return None if found < 0 else found

  def _move_away(self, step: int) -> epath.Path:
    """Moves a checkpoint to `damaged/`; returns its new path."""
    folder = self._directory.parent / 'damaged'
    names = (f'{step}-{n}' if n else f'{step}' for n in itertools.count())
    target = next(folder / name for name in names if not (folder / name).exists())
    distributed.wait_for_all()  # All must choose the target before it exists.
    if distributed.is_first():
      folder.mkdir(exist_ok=True)
      (self._directory / str(step)).rename(target)
    distributed.wait_for_all()
    self._manager.reload()
    return target

  def close(self) -> None:
    """Waits for the save in progress.

    Raises:
      OSError: it failed.
    """
    with self._writing():
      self._manager.wait_until_finished()
    self._manager.close()


class _Keep:
  """Orbax PreservationPolicy that keeps the newest complete checkpoints and the best.

  Orbax's own policies count incomplete checkpoints too, and so delete complete ones.

  Attributes:
    always: steps to keep regardless of age: the one being written, and the best.
  """

  def __init__(self, directory: epath.Path, newest: int | None):
    self._directory = directory
    self._newest = newest
    self.always: set[int | None] = set()

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
    steps = [checkpoint.step for checkpoint in checkpoints]
    if self._newest is None:
      return [True] * len(steps)
    complete = [step for step in steps if self._is_complete(step)]
    kept = self.always | set(sorted(complete)[-self._newest :])
    return [step in kept or step not in complete for step in steps]

  def _is_complete(self, step: int) -> bool:
    return step in self.always or is_complete(self._directory / str(step))


def read_params(
  workdir: epath.Path, step: int, abstract: Any, part: str = 'params'
) -> Any:
  """Reads only the parameters of a checkpoint, as NumPy arrays on the host.

  Args:
    abstract: their shapes and dtypes.
    part: 'params', or 'average' for their moving average.

  Raises:
    DamagedCheckpointError, InputError: as `Checkpoints.restore`.
  """
  path = epath.Path(workdir) / 'checkpoints' / str(step)
  saved = checkpoint_integrity.read_arrays(path)
  saved = {k: v for k, v in saved.items() if k.startswith(f'{part}/')}
  handler = ocp.CompositeCheckpointHandler(default=ocp.PyTreeCheckpointHandler())
  with (
    checkpoint_integrity.wrapped_errors(path),
    ocp.Checkpointer(handler) as checkpointer,
  ):
    tree = checkpoint_integrity.tree(
      path, checkpointer.metadata(path).item_metadata['default']
    )
    stored = {part: tree[part]}
    checkpoint_integrity.check_arrays(path, stored, {part: abstract}, saved)
    on_host = ocp.RestoreArgs(restore_type=np.ndarray)
    args = ocp.args.PyTreeRestore(
      stored,
      restore_args={part: jax.tree.map(lambda _: on_host, abstract)},
      partial_restore=True,
    )
    found = checkpointer.restore(path, args=ocp.args.Composite(default=args))
  params = found['default'][part]
  checkpoint_integrity.check_sums(path, {part: params}, saved)
  return params
