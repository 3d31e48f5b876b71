"""Checkpoints, numbered by step."""

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

# Replicas share the writing of an array from this size on. Each share of each shape is
# a program of its own to compile, and the first save waits for all of them.
SHARED_BYTES = 4 * 2**20
ARRAYS = ocp.type_handlers.create_type_handler_registry(
  (
    jax.Array,
    ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=SHARED_BYTES),
  )
)


class Checkpoints:
  """The numbered checkpoints of a work directory.

  Raises:
    InputError: the metadata of one are of a kind that Orbax does not know.
  """

  def __init__(self, workdir: epath.Path, keep: int | None = None):
    self._directory = epath.Path(workdir) / 'checkpoints'
    self._keep = _Keep(self._directory, keep)
    options = ocp.CheckpointManagerOptions(preservation_policy=self._keep, create=True)
    # Named, or a process that has not saved yet cannot read what there is.
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=ARRAYS)
    try:
      self._manager = ocp.CheckpointManager(
        self._directory, item_handlers=handler, options=options
      )
    # It reads the metadata of all checkpoints.
    except ValueError as error:
      raise InputError(
        f'{self._directory}: one of its {METADATA} cannot be read ({error}); '
        f'did a newer orbax-checkpoint than {ocp.__version__} write it? Update it, or '
        'move that checkpoint away'
      ) from None
    self._newest = self.latest_step()

  def latest_step(self) -> int | None:
    """Returns the step of the newest complete checkpoint, or None."""
    return max(self._complete_steps(), default=None)

  def _complete_steps(self) -> list[int]:
    steps = self._manager.all_steps()
    return [step for step in steps if is_complete(self._directory / str(step))]

  def save(self, step: int, state: Any, best: int | None = None) -> None:
    """Starts to write a checkpoint unless it exists; training may continue meanwhile.

    When it is complete, those are deleted that are no longer to be kept.

    Args:
      step: not smaller than those before.
      state: a tree of JAX arrays.
      best: a step whose checkpoint is kept whatever its age.

    Raises:
      OSError: it cannot be written, or the one before could not.
    """
    if step == self._newest:
      return
    self._keep.always = {step, best}
    marks = checkpoint_integrity.marks(state)
    with self._writing():
      self._save(step, state, marks)
    self._newest = step

  def _save(self, step: int, state: Any, marks: dict) -> None:
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
      args=ocp.args.PyTreeSave(state),
      force=True,
      custom_metadata=marks,
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
      'whatever it needs, then run the same command to continue from the checkpoint '
      'before'
    )

  def restore_newest(self, abstract: Any) -> tuple[int, Any]:
    """Reads the newest checkpoint that is whole; returns its step and content.

    Damaged checkpoints are reported and moved away: they would count among those to
    keep, and the whole one might be deleted for them.

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
        print(f'Damaged, and moved to {self._move_away(passed)}: {error}')
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
      InputError: a newer version wrote it; or an array has another shape or dtype than
        expected, is missing, or is not known to the model.
    """
    where = self._directory / str(step)
    saved, state, damage = {}, None, None
    try:
      saved = checkpoint_integrity.saved(where)
      state = self._read(where, step, abstract, saved)
    except DamagedCheckpointError as error:
      damage = error
    if distributed.any_process(damage is not None):
      raise damage or DamagedCheckpointError(f'{where}: another process cannot read it')
    checkpoint_integrity.check_sums(where, state, saved)
    return state

  def _read(
    self,
    where: epath.Path,
    step: int,
    abstract: Any,
    saved: checkpoint_integrity.Arrays,
  ) -> Any:
    """Reads without waiting for others, which may be unable to."""
    options = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:
      me = jax.process_index()
      options = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f'rahf-{me}'
      )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
    with checkpoint_integrity.reading(where):
      stored = checkpoint_integrity.tree(where, self._manager.item_metadata(step))
      checkpoint_integrity.check_arrays(where, stored, abstract, saved)
      with ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
        return checkpointer.restore(
          where / 'default', args=ocp.args.StandardRestore(abstract)
        )

  def _newest_but(self, passed_over: Collection[int]) -> int | None:
    """Returns the newest complete step but these, as the first process sees it."""
    steps = set(self._complete_steps()) - set(passed_over)
    found = int(distributed.from_first(max(steps, default=-1)))
    return None if found < 0 else found

  def _move_away(self, step: int) -> epath.Path:
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


class _Keep:
  """Orbax's PreservationPolicy of the newest complete checkpoints and the best.

  Orbax would count what is not complete among the newest, and delete others for it.

  Attributes:
    always: steps that stay whatever their age: what is being written, and the best.
  """

  def __init__(self, directory: epath.Path, newest: int | None):
    self._directory = directory
    self._newest = newest
    self.always: set[int | None] = set()

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
    steps = [checkpoint.step for checkpoint in checkpoints]
    if self._newest is None:
      return [True] * len(steps)
    whole = [step for step in steps if self._is_whole(step)]
    kept = self.always | set(sorted(whole)[-self._newest :])
    return [step in kept or step not in whole for step in steps]

  def _is_whole(self, step: int) -> bool:
    return step in self.always or is_complete(self._directory / str(step))


def read_params(
  workdir: epath.Path, step: int, abstract: Any, part: str = 'params'
) -> Any:
  """Reads a checkpoint's parameters alone, to arrays of NumPy on the host.

  Args:
    abstract: their shapes and dtypes.
    part: 'params', or 'average' for their moving average.

  Raises:
    DamagedCheckpointError, InputError: as `Checkpoints.restore`.
  """
  where = epath.Path(workdir) / 'checkpoints' / str(step)
  saved = checkpoint_integrity.saved(where)
  saved = {path: mark for path, mark in saved.items() if path.startswith(f'{part}/')}
  handler = ocp.CompositeCheckpointHandler(default=ocp.PyTreeCheckpointHandler())
  with checkpoint_integrity.reading(where), ocp.Checkpointer(handler) as checkpointer:
    tree = checkpoint_integrity.tree(
      where, checkpointer.metadata(where).item_metadata['default']
    )
    stored = {part: tree[part]}
    checkpoint_integrity.check_arrays(where, stored, {part: abstract}, saved)
    on_host = ocp.RestoreArgs(restore_type=np.ndarray)
    args = ocp.args.PyTreeRestore(
      stored,
      restore_args={part: jax.tree.map(lambda _: on_host, abstract)},
      partial_restore=True,
    )
    found = checkpointer.restore(where, args=ocp.args.Composite(default=args))
  params = found['default'][part]
  checkpoint_integrity.check_sums(where, {part: params}, saved)
  return params
