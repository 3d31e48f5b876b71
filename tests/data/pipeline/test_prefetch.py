import itertools
import threading

import pytest

from rahf.data.pipeline.prefetch import prefetch


def test_order_is_kept_a_few_items_ahead():
  started = []

  def transfer(item):
    started.append(item)
    return item * item

  results = prefetch(iter(range(20)), transfer, size=3)
  assert next(results) == 0
  assert list(results) == [k * k for k in range(1, 20)]
  assert started == list(range(20))


def test_errors_are_raised_in_order():
  def numbers():
    yield 1
    raise ValueError('broken record')

  results = prefetch(numbers(), float)
  assert next(results) == 1.0
  with pytest.raises(ValueError, match='broken record'):
    next(results)


def test_thread_ends_with_its_consumer():
  results = prefetch(itertools.count(), float)
  next(results)
  results.close()
  assert not [t for t in threading.enumerate() if t.name.startswith('prefetch')]
