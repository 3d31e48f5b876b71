"""Joins what comes one by one to batches."""

import collections
import concurrent.futures
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')


class Batcher(Generic[Item, Result]):
  """Runs what is submitted in batches, on a thread of its own, first come first served.

  While a batch runs, the next one gathers. Nothing bounds how many wait: whoever
  submits does.
  """

  def __init__(
    self,
    run: Callable[[Sequence[Item]], Sequence[Result]],
    sizes: Sequence[int],
    wait: float = 0.0,
  ):
    """Starts the thread.

    Args:
      run: gives a result for each item, in order. An error goes to all of its batch.
      sizes: of batches that are equally expensive however full, ascending.
      wait: seconds in which a batch may still fill up.
    """
    self._run, self._sizes, self._wait = run, sizes, wait
    self._waiting = collections.deque()
    self._changed = threading.Condition()
    self._stopping = False
    # A daemon, so that a device that hangs cannot keep the process.
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
    """Items that are in no batch yet."""
    return len(self._waiting)

  def hurry(self) -> None:
    """Ends the waiting for fuller batches. A handler of signals may call it."""
    with self._changed:  # Its lock can be taken twice by one thread.
      self._wait = 0.0
      self._changed.notify()

  def stop(self, timeout: float | None = None) -> bool:
    """Takes nothing more, and waits until all that was queued is done.

    Returns:
      Whether it is, or False after `timeout` seconds.
    """
    with self._changed:
      self._stopping = True
    self.hurry()
    self._thread.join(timeout)
    return not self._thread.is_alive()

  def _work(self) -> None:
    while batch := self._gather():
      # Who gave up meanwhile is left out.
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
    """Waits for the next batch; an empty one is the end."""
    with self._changed:
      self._changed.wait_for(lambda: self._waiting or self._stopping)
      if self._wait:
        self._changed.wait_for(
          lambda: len(self._waiting) >= self._sizes[-1] or not self._wait, self._wait
        )
      count = take(len(self._waiting), self._sizes)
      return [self._waiting.popleft() for _ in range(count)]


def take(waiting: int, sizes: Sequence[int]) -> int:
  """Returns how many of those that wait make the next batch.

  All that fit, unless more than half of the batch would be padding: then as many as
  fill the next smaller size.

  Args:
    sizes: of batches, ascending.
  """
  fitting = next((size for size in sizes if size >= waiting), sizes[-1])
  full = max((size for size in sizes if size <= waiting), default=0)
  return min(waiting, fitting) if 2 * waiting >= fitting or not full else full
