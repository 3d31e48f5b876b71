"""Batches that worker processes make, in the order in which one process would.

Decoding holds Python's lock much of the time, so that the threads of one process use
little more than one core.
"""

import itertools
import multiprocessing
import pickle
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import numpy as np

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
    self._connection, to_send = context.Pipe(duplex=False)
    self._process = context.Process(
      target=_send_all, args=(make, number, to_send), daemon=True
    )
    self._process.start()
    to_send.close()  # So that receiving fails when the process ends.

  def receive(self) -> Any:
    """Returns the next item, or raises what the iterator has raised."""
    try:
      item = _receive(self._connection)
    except EOFError:
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


def _send_all(
  make: Callable[[int], Iterator[Any]], number: int, connection: Connection
) -> None:
  """Runs in the worker."""
  # The main process decides when to stop: after the step that it is in.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  try:
    try:
      for item in make(number):
        _send(connection, item)
    except BrokenPipeError:
      raise
    except Exception as error:
      _send(connection, error)
  except BrokenPipeError:
    pass  # Nobody listens any more.


def _send(connection: Connection, item: Any) -> None:
  """Sends an item; its arrays are not copied before."""
  buffers: list[pickle.PickleBuffer] = []
  data = pickle.dumps(item, protocol=5, buffer_callback=buffers.append)
  views = [buffer.raw() for buffer in buffers]
  connection.send((data, [view.nbytes for view in views]))
  for view in views:
    connection.send_bytes(view)


def _receive(connection: Connection) -> Any:
  data, sizes = connection.recv()
  buffers = [np.empty(size, np.uint8) for size in sizes]
  for buffer in buffers:
    connection.recv_bytes_into(buffer)
  return pickle.loads(data, buffers=buffers)
