"""Coordinates the processes of a multi-host run."""

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

  JAX finds them on a TPU slice and under Slurm, Kubernetes or Open MPI. Elsewhere it
  needs JAX_COORDINATOR_ADDRESS (host:port of the first process), JAX_NUM_PROCESSES and
  JAX_PROCESS_ID.

  Raises:
    InputError: the variables are not set, or the other processes do not show up.
  """
  # Its SIGTERM handler would replace ours.
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
      f'--multihost: {error}\nOutside TPU slices, Slurm, Kubernetes and Open MPI, '
      'set JAX_COORDINATOR_ADDRESS (host:port of the first process), '
      'JAX_NUM_PROCESSES and JAX_PROCESS_ID'
    ) from error


def silence_others() -> None:
  """Discards stdout in all processes except the first."""
  if not is_first():
    sys.stdout = open(os.devnull, 'w')  # noqa: SIM115


def check_joined() -> None:
  """Raises InputError if this is one of several hosts and they have not joined."""
  if jax.process_count() > 1 and not jax.distributed.is_initialized():
    raise InputError(
      f'the accelerator is shared by {jax.process_count()} hosts; run with --multihost '
      'on each of them'
    )


def is_first() -> bool:
  """Returns whether this is the first process, which writes and prints."""
  return jax.process_index() == 0


def from_first(value: float) -> float:
  """Returns the first process's value in every process; waits for all."""
  if jax.process_count() == 1:
    return value
  # Sent as bytes, since JAX would round a float64.
  raw = np.frombuffer(np.float64(value).tobytes(), np.uint8)
  return float(multihost_utils.broadcast_one_to_all(raw).view(np.float64)[0])


def any_process(value: bool) -> bool:
  """Returns whether `value` is True in any process; waits for all."""
  if jax.process_count() == 1:
    return value
  return bool(np.any(multihost_utils.process_allgather(np.array(value))))


def wait_for_all() -> None:
  """Waits until every process has called this."""
  multihost_utils.sync_global_devices('rahf')


def interruptible(interruption: Interruption) -> contextlib.AbstractContextManager:
  """Returns `interruption.raising()`, or with several processes a null context.

  If one of several processes left, the others would wait for it forever; `StopSignal`
  stops them together later.
  """
  single = jax.process_count() == 1
  return interruption.raising() if single else contextlib.nullcontext()


class StopSignal:
  """Tells all processes, at the same step, that any of them was asked to stop.

  All processes must poll equally often. A single process learns of a signal at once;
  several learn of it one poll later, so that none has to wait for the others.

  Attributes:
    interruption: the signals of this process.
    received: the result of the last poll.
  """

  def __init__(self, interruption: Interruption, mesh: Mesh):
    self.interruption = interruption
    self._mesh = mesh
    self._any = jax.jit(jnp.max, out_shardings=sharding.replicated(mesh))
    self._waiting: jax.Array | None = None
    self.received = False

  def poll(self) -> bool:
    """Updates and returns `received`, which stays True once set."""
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
