"""Several processes as one run: how they join, and how they decide together."""

import contextlib
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rahf.errors import InputError
from rahf.runtime import sharding
from rahf.runtime.preemption import Interrupted, Interruption


def join() -> None:
  """Joins the other processes of the run.

  On a TPU slice, and under Slurm, Kubernetes or Open MPI, JAX finds them. Elsewhere
  JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and
  JAX_PROCESS_ID say it.

  Raises:
    InputError: there is nothing to join by, or the others do not come.
  """
  # Its handler would take SIGTERM from ours.
  jax.config.update('jax_enable_preemption_service', False)
  numbers = {
    'num_processes': os.environ.get('JAX_NUM_PROCESSES'),
    'process_id': os.environ.get('JAX_PROCESS_ID'),
  }
  try:
    jax.distributed.initialize(
      **{name: int(value) for name, value in numbers.items() if value}
    )
  except (ValueError, RuntimeError) as error:
    raise InputError(
      f'--multihost: {error}\nOutside of TPU slices, Slurm, Kubernetes and Open MPI '
      'set JAX_COORDINATOR_ADDRESS (host:port of the first process), '
      'JAX_NUM_PROCESSES and JAX_PROCESS_ID'
    ) from error


def silence_others() -> None:
  """Leaves only the first process its stdout."""
  if not is_first():
    sys.stdout = open(os.devnull, 'w')  # noqa: SIM115


def check_joined() -> None:
  """Raises InputError if this host is one of several that have not joined."""
  if jax.process_count() > 1 and not jax.distributed.is_initialized():
    raise InputError(
      f'the accelerator is shared by {jax.process_count()} hosts; add --multihost, on '
      'each of them'
    )


def is_first() -> bool:
  """Returns whether this is the process that writes and prints."""
  return jax.process_index() == 0


def from_first(value: float) -> float:
  """Returns the first process's value in all of them; waits for all."""
  if jax.process_count() == 1:
    return value
  # As bytes: a float64 would be rounded.
  raw = np.frombuffer(np.float64(value).tobytes(), np.uint8)
  return float(multihost_utils.broadcast_one_to_all(raw).view(np.float64)[0])


def any_process(value: bool) -> bool:
  """Returns whether it is True in any process; waits for all."""
  if jax.process_count() == 1:
    return value
  return bool(np.any(multihost_utils.process_allgather(np.array(value))))


def wait_for_all() -> None:
  """Returns when every process has come here."""
  multihost_utils.sync_global_devices('rahf')


def interruptible(interruption: Interruption) -> contextlib.AbstractContextManager:
  """Returns `interruption.raising()`, or for several processes what does nothing.

  Others would wait in vain for one that is gone; StopSignal tells them of it later.
  """
  alone = jax.process_count() == 1
  return interruption.raising() if alone else contextlib.nullcontext()


class StopSignal:
  """Whether any process was asked to stop, found out by all at the same point.

  All processes must poll equally often. One alone learns of a signal at once, several
  at the poll after, so that none waits for the others' answers.

  Attributes:
    interruption: the signals of this process.
    received: the answer of the last poll.
  """

  def __init__(self, interruption: Interruption, mesh: Mesh):
    self.interruption = interruption
    self._mesh = mesh
    self._any = jax.jit(jnp.max, out_shardings=sharding.replicated(mesh))
    self._waiting: jax.Array | None = None
    self.received = False

  def poll(self) -> bool:
    """Updates `received` and returns it; once True it stays so."""
    if jax.process_count() == 1:
      self.received = self.interruption.requested
    elif not self.received:
      self.received = self._waiting is not None and bool(self._waiting)
      self._waiting = self._ask()
    return self.received

  def check(self) -> None:
    """Polls, and raises Interrupted if a signal has come."""
    if self.poll():
      raise Interrupted

  def _ask(self) -> jax.Array:
    everywhere = NamedSharding(self._mesh, PartitionSpec(sharding.AXES))
    asked = np.array([self.interruption.requested])
    flags = jax.make_array_from_callback(
      (self._mesh.size,), everywhere, lambda index: asked
    )
    return self._any(flags)
