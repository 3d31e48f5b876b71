"""Worker processes for generated data."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator

# Below this many samples, starting worker processes takes longer than it saves.
_SERIAL_SAMPLES = 1_000


@contextlib.contextmanager
def workers(samples: int, chunk: int) -> Iterator[Callable]:
  """Yields a `map` function; it uses processes if there are enough samples.

  Args:
    samples: how many are to be made.
    chunk: how many of them a call makes.
  """
  processes = min(os.cpu_count() or 1, -(-samples // chunk))
  if samples < _SERIAL_SAMPLES or processes == 1:
    yield map
    return
  # Spawned, since TensorFlow's threads do not survive a fork. Ctrl-C reaches the
  # workers too, but only the main process handles it.
  ignore = signal.SIGINT, signal.SIG_IGN
  with multiprocessing.get_context('spawn').Pool(
    processes, signal.signal, ignore
  ) as pool:
    yield pool.imap
