"""Sends objects between processes; their arrays travel in shared memory.

A pipe would copy arrays twice, in small pieces. Here the sender copies them once, into
a block of memory that the receiver sees. A block is used again when the receiver has
dropped all arrays that lie in it.
"""

import collections
import contextlib
import mmap
import os
import pickle
import tempfile
import weakref
from collections.abc import Sequence
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

# Of arrays in a block, in bytes: JAX on a CPU uses such arrays without a copy.
_ALIGNMENT = 64


class Sender:
  """Sends objects, whose receiver is the parent of this process."""

  def __init__(self, connection: Connection, ahead: int = 1):
    """`ahead` is how many objects may wait for the receiver."""
    self._connection, self._ahead = connection, ahead
    self._blocks: list[mmap.mmap] = []
    self._free: set[int] = set()

  def send(self, item: Any) -> None:
    """Sends an object, as soon as few enough wait.

    Raises:
      BrokenPipeError, ConnectionResetError: the receiver has ended.
    """
    self._wait()
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(item, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    spans = _spans([view.nbytes for view in views])
    number, file = self._block(max(spans[-1].stop, 1)) if spans else (None, None)
    for span, view in zip(spans, views, strict=True):
      self._blocks[number][span] = view
    self._connection.send((data, number, spans, file is not None))
    if file is not None:
      reduction.send_handle(self._connection, file, os.getppid())
      os.close(file)
    self._ahead -= 1

  def _wait(self) -> None:
    """Waits until one more object may wait, and for blocks to use again."""
    while not self._ahead or self._connection.poll():
      try:
        self._free.update(self._connection.recv())
      except EOFError:
        raise BrokenPipeError from None
      self._ahead += 1

  def _block(self, size: int) -> tuple[int, int | None]:
    """Returns a free block of at least this size, and its file if it is a new one."""
    for number in self._free:
      if len(self._blocks[number]) >= size:
        self._free.remove(number)
        return number, None
    file = _memory_file(size)
    self._blocks.append(mmap.mmap(file, 0))
    return len(self._blocks) - 1, file


class Receiver:
  """Receives objects."""

  def __init__(self, connection: Connection):
    self._connection = connection
    self._blocks: dict[int, mmap.mmap] = {}
    # Numbers of blocks; arrays may be dropped in any thread.
    self._dropped: collections.deque[int] = collections.deque()

  def receive(self) -> Any:
    """Returns the next object.

    Raises:
      EOFError, ConnectionResetError: the sender has ended.
    """
    data, block, spans, is_new = self._connection.recv()
    if is_new:
      file = reduction.recv_handle(self._connection)
      self._blocks[block] = mmap.mmap(file, 0)
      os.close(file)
    item = pickle.loads(data, buffers=self._arrays(block, spans))
    dropped = [self._dropped.popleft() for _ in range(len(self._dropped))]
    # If the sender has ended, what it sent before can still be received.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
      self._connection.send(dropped)
    return item

  def _arrays(self, number: int, spans: Sequence[slice]) -> list[np.ndarray]:
    if not spans:
      return []
    # All arrays in the block refer to this array, which therefore goes last: their base
    # is the last array of the chain, so that the block itself must not be one.
    block = np.frombuffer(self._blocks[number], np.uint8)
    weakref.finalize(block, self._dropped.append, number).atexit = False
    return [block[span] for span in spans]


def _spans(sizes: Sequence[int]) -> list[slice]:
  """Returns where in a block arrays of these sizes lie."""
  spans, start = [], 0
  for size in sizes:
    spans.append(slice(start, start + size))
    start += -(-size // _ALIGNMENT) * _ALIGNMENT
  return spans


def _memory_file(size: int) -> int:
  """Returns a file without a name, in memory if the system has such files."""
  if hasattr(os, 'memfd_create'):
    file = os.memfd_create('arrays')
  else:
    with tempfile.TemporaryFile() as temporary:
      file = os.dup(temporary.fileno())
  os.truncate(file, size)
  return file
