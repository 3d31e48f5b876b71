"""Batches that worker processes make, in the order in which one process would.

Decoding holds Python's lock much of the time, so that the threads of one process use
little more than one core.
"""

import contextlib
import itertools
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from rahf.data import quiet_tensorflow
from rahf.data.pipeline.shared_memory import Receiver, Sender

Item = TypeVar('Item')


def in_turn(make: Callable[[int], Iterator[Item]], workers: int) -> Iterator[Item]:
  """Yields the items of several endless iterators in turn, each from its own process.

  Processes start with the first item, and end when the iterator is closed or when this
  process ends. Each works a little ahead.

  Args:
    make: returns the iterator of the worker with this number, from 0 on. Must be
      picklable, and its items as well.

  Raises:
    OSError: a worker ended. What an iterator raises is raised here.
  """
  started = [_Worker(make, number) for number in range(workers)]
  try:
    for worker in itertools.cycle(started):
      yield worker.receive()
  finally:
    for worker in started:
      worker.stop()


class _Worker:
  """A process that sends the items of an iterator."""

  def __init__(self, make: Callable[[int], Iterator[Any]], number: int):
    # Not forked: TensorFlow and JAX run threads, which a fork would lose.
    context = multiprocessing.get_context('spawn')
    self._connection, theirs = context.Pipe()
    self._receiver = Receiver(self._connection)
    self._process = context.Process(target=_send_all, args=(theirs,), daemon=True)
    with _blocked_signals():
      self._process.start()
    theirs.close()  # So that sending and receiving fail when the process ends.
    # Not as arguments: starting a process that ends at once would then never return,
    # since they are more than a pipe holds.
    with contextlib.suppress(BrokenPipeError):
      self._connection.send((make, number))

  def receive(self) -> Any:
    """Returns the next item, or raises what the iterator has raised."""
    try:
      item = self._receiver.receive()
    except (EOFError, ConnectionResetError):
      self._process.join()
      raise OSError(
        'a worker of the input pipeline ended with exit code '
        f'{self._process.exitcode}; -9 often means that memory ran out: lower '
        'config.data.workers, or run the same command to continue'
      ) from None
    if isinstance(item, Exception):
      raise item
    return item

  def stop(self) -> None:
    self._process.kill()
    self._process.join()
    self._connection.close()


@contextlib.contextmanager
def _blocked_signals() -> Iterator[None]:
  """Lets processes that start meanwhile ignore Ctrl-C and SIGTERM for good.

  Such signals often go to all processes of a job. The main process decides when to
  stop: after the step that it is in.
  """
  # It unblocks these signals when it starts, which the first process would make it do.
  resource_tracker.ensure_running()
  before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _send_all(connection: Connection) -> None:
  """Runs in the worker."""
  quiet_tensorflow.import_tensorflow()  # Which what it receives will import.
  # Nobody listens any more if one of these is raised.
  with contextlib.suppress(BrokenPipeError, ConnectionResetError, EOFError):
    make, number = connection.recv()
    sender = Sender(connection)
    try:
      for item in make(number):
        sender.send(item)
    except (BrokenPipeError, ConnectionResetError):
      raise
    except Exception as error:
      sender.send(error)
