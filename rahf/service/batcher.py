"""Collects single items into batches."""

import collections
import concurrent.futures
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')


class Batcher(Generic[Item, Result]):
  """Runs submitted items in batches on its own thread, first come, first served.

  While a batch runs, the next one fills. The number of waiting items is not limited
  here; the caller limits it.
  """

  def __init__(
    self,
    run: Callable[[Sequence[Item]], Sequence[Result]],
    sizes: Sequence[int],
    wait: float = 0.0,
  ):
    """Starts the thread.

    Args:
      run: returns a result for each item, in order. If it raises, every item of the
        batch gets the error.
      sizes: batch sizes, ascending. A batch costs the same whether full or not.
      wait: seconds for which a batch that is not full waits for more items.
    """
    self._run, self._sizes, self._wait = run, sizes, wait
    self._waiting = collections.deque()
    self._changed = threading.Condition()
    self._stopping = False
    # A daemon, so that a hanging device cannot keep the process alive.
    self._thread = threading.Thread(target=self._work, name='batches', daemon=True)
    self._thread.start()

  def submit(self, item: Item) -> concurrent.futures.Future[Result]:
    """Queues an item.

    Raises:
      RuntimeError: `stop` was called.
    """
    future = concurrent.futures.Future()
    with self._changed:
      if self._stopping:
        raise RuntimeError('the batcher is stopped')
      self._waiting.append((item, future))
      self._changed.notify()
    return future

  @property
  def waiting(self) -> int:
    """The number of items not yet in a batch."""
    return len(self._waiting)

  def stop_waiting(self) -> None:
    """Stops waiting for fuller batches. May be called from a signal handler."""
    with self._changed:  # The lock is reentrant.
      self._wait = 0.0
      self._changed.notify()

  def stop(self, timeout: float | None = None) -> bool:
    """Accepts no more items and waits until all queued ones are done.

    Returns:
      Whether they were done within `timeout` seconds.
    """
    with self._changed:
      self._stopping = True
    self.stop_waiting()
    self._thread.join(timeout)
    return not self._thread.is_alive()

  def _work(self) -> None:
    while batch := self._gather():
      # Drops items that were cancelled meanwhile.
      batch = [pair for pair in batch if pair[1].set_running_or_notify_cancel()]
      if not batch:
        continue
      items, futures = zip(*batch, strict=True)
      try:
        results = self._run(items)
      except Exception as error:
        for future in futures:
          future.set_exception(error)
      else:
        for future, result in zip(futures, results, strict=True):
          future.set_result(result)

  def _gather(self) -> list[tuple[Item, concurrent.futures.Future[Result]]]:
    """Waits for the next batch; an empty one means that the batcher was stopped."""
    with self._changed:
      self._changed.wait_for(lambda: self._waiting or self._stopping)
      if self._wait:
        self._changed.wait_for(
          lambda: len(self._waiting) >= self._sizes[-1] or not self._wait, self._wait
        )
      count = next_batch_size(len(self._waiting), self._sizes)
      return [self._waiting.popleft() for _ in range(count)]


def next_batch_size(waiting: int, sizes: Sequence[int]) -> int:
  """Returns how many of the waiting items go into the next batch.

  As many as fit, unless more than half of the batch would be padding; then as many as
  fill the next smaller size.

  Args:
    waiting: the number of waiting items.
    sizes: batch sizes, ascending.
  """
  fitting = next((size for size in sizes if size >= waiting), sizes[-1])
  full = max((size for size in sizes if size <= waiting), default=0)
  return min(waiting, fitting) if 2 * waiting >= fitting or not full else full
