"""Prefetches batches to the device while the previous step runs."""

import collections
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import TypeVar

Item = TypeVar('Item')
Moved = TypeVar('Moved')


def prefetch(
  iterator: Iterator[Item], transfer: Callable[[Item], Moved], size: int = 2
) -> Iterator[Moved]:
  """Yields `transfer(item)` for each item, working up to `size` items ahead.

  Both run in one background thread; their exceptions are raised here, in order.
  """
  end = object()

  def advance():
    item = next(iterator, end)
    return item if item is end else transfer(item)

  pool = futures.ThreadPoolExecutor(1, thread_name_prefix='prefetch')
  try:
    waiting = collections.deque(pool.submit(advance) for _ in range(size))
    while (item := waiting.popleft().result()) is not end:
      waiting.append(pool.submit(advance))
      yield item
  finally:
    pool.shutdown(cancel_futures=True)
