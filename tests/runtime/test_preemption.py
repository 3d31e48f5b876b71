"""Signals during work that may be interrupted at any point."""

import gc
import os
import signal
import sys
import time

import pytest

from rahf.runtime.preemption import Interrupted, Interruption


def stop_this_process():
  os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(0.01)


def stop_and_wait(interruption, stop):
  with interruption.raising():
    stop()
    for _ in range(500):
      time.sleep(0.01)


class Finalized:
  def __del__(self):
    stop_this_process()


def stop_in_a_finalizer():
  Finalized()


def stop_in_the_collector():
  def callback(phase, info):
    gc.callbacks.remove(callback)
    stop_this_process()

  gc.callbacks.append(callback)
  gc.collect()


@pytest.mark.parametrize(
  'stop', [stop_this_process, stop_in_a_finalizer, stop_in_the_collector]
)
def test_a_signal_is_raised_wherever_it_arrives(stop, capfd):
  before = sys.unraisablehook, signal.getsignal(signal.SIGALRM)
  with Interruption() as interruption:
    with pytest.raises(Interrupted):
      stop_and_wait(interruption, stop)
    assert interruption.requested
  assert (sys.unraisablehook, signal.getsignal(signal.SIGALRM)) == before
  assert capfd.readouterr().err == ''


def test_other_errors_of_finalizers_are_printed(capfd, monkeypatch):
  class Wrong:
    def __del__(self):
      raise ValueError('of a finalizer')

  monkeypatch.setattr(sys, 'unraisablehook', sys.__unraisablehook__)
  with Interruption() as interruption, interruption.raising():
    Wrong()
  assert 'of a finalizer' in capfd.readouterr().err


def test_outside_raising_a_signal_is_only_recorded():
  with Interruption() as interruption:
    stop_this_process()
    with pytest.raises(Interrupted):
      interruption.check()
