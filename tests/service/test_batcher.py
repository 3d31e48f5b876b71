"""Waiting items are batched in order, without too much padding."""

import threading

import pytest

from rahf.service.batcher import Batcher, next_batch_size


@pytest.mark.parametrize(
  ('waiting', 'taken'),
  [
    (1, 1),
    (2, 2),
    (3, 2),
    (4, 4),
    (8, 8),
    (9, 8),
    (15, 8),
    (16, 16),
    (32, 32),
    (99, 32),
  ],
)
def test_no_batch_is_more_than_half_padding(waiting, taken):
  assert next_batch_size(waiting, (1, 2, 8, 32)) == taken


def test_the_smallest_size_may_be_more_than_half_padding():
  assert next_batch_size(1, (8, 32)) == 1


class Recorder:
  """Doubles numbers; batches wait until `go` is set."""

  def __init__(self):
    self.batches, self.started, self.go = [], threading.Event(), threading.Event()

  def __call__(self, items):
    self.batches.append(list(items))
    self.started.set()
    assert self.go.wait(30)
    if 'bad' in items:
      raise ValueError('bad')
    return [2 * item for item in items]


@pytest.fixture
def recorder():
  return Recorder()


@pytest.fixture
def busy(recorder):
  """A batcher that is busy with one item until the recorder's `go` is set."""
  batcher = Batcher(recorder, (1, 4))
  first = batcher.submit(0)
  assert recorder.started.wait(30)
  yield batcher
  recorder.go.set()
  assert first.result(30) == 0
  assert batcher.stop(30)


def test_items_that_arrive_meanwhile_are_batched_in_order(busy, recorder):
  futures = [busy.submit(number) for number in range(1, 7)]
  assert busy.waiting == 6
  recorder.go.set()
  assert [future.result(30) for future in futures] == [2, 4, 6, 8, 10, 12]
  assert recorder.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_cancelled_items_are_left_out(busy, recorder):
  futures = [busy.submit(number) for number in range(1, 5)]
  assert futures[1].cancel()
  recorder.go.set()
  assert futures[3].result(30) == 8
  assert recorder.batches == [[0], [1, 3, 4]]


def test_an_error_affects_only_its_batch(busy, recorder):
  bad, beside = busy.submit('bad'), busy.submit(1)
  recorder.go.set()
  for future in (bad, beside):
    with pytest.raises(ValueError, match='bad'):
      future.result(30)
  assert busy.submit(3).result(30) == 6


def test_stop_finishes_waiting_items(busy, recorder):
  futures = [busy.submit(number) for number in range(1, 4)]
  assert not busy.stop(0)
  with pytest.raises(RuntimeError, match='stopped'):
    busy.submit(9)
  recorder.go.set()
  assert busy.stop(30)
  assert [future.result(0) for future in futures] == [2, 4, 6]


def test_a_batch_may_wait_to_fill_up(recorder):
  recorder.go.set()
  batcher = Batcher(recorder, (1, 2), wait=30)
  futures = [batcher.submit(1), batcher.submit(2)]
  assert [future.result(20) for future in futures] == [2, 4]
  assert recorder.batches == [[1, 2]]
  last = batcher.submit(3)
  assert batcher.stop(20)  # Stopping ends the wait.
  assert last.result(0) == 6


def test_after_stop_waiting_no_batch_waits_to_fill_up(recorder):
  recorder.go.set()
  batcher = Batcher(recorder, (1, 2), wait=30)
  before = batcher.submit(1)
  batcher.stop_waiting()
  assert before.result(20) == 2
  assert batcher.submit(2).result(20) == 4
  assert batcher.stop(20)
