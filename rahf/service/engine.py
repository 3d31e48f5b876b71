"""Decodes images, scores them in batches, and encodes the answers."""

import asyncio
import concurrent.futures
import json
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from rahf.data.images import inputs
from rahf.errors import InputError
from rahf.inference.feedback import Feedback
from rahf.inference.scorer import Example, Scorer
from rahf.service.batcher import Batcher
from rahf.service.prometheus import ServiceMetrics
from rahf.service.reading import ParsedRequest

State = Literal['compiling', 'ready', 'stopping']
_log = logging.getLogger(__name__)
# Any prompt compiles the same program.
WARM_UP_PROMPT = 'a'


class Engine:
  """Scores single requests with a model, in batches.

  Attributes:
    model: the model.
    compiled: how many of `model.buckets` are compiled.
    dropped: admitted requests that were not answered before the service stopped.
    metrics: the metrics for Prometheus.
  """

  def __init__(self, model: Scorer, *, wait: float = 0.0):
    """Starts threads; for `wait`, in seconds, see `Batcher`."""
    self.model = model
    self.compiled = self.dropped = 0
    self._stopping = False
    self._batcher = Batcher(self._run, model.buckets, wait)
    self._pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count(), 'images')
    self.metrics = ServiceMetrics(model.buckets, lambda: self._batcher.waiting)
    self.metrics.ready.set_function(lambda: self.state == 'ready')

  @property
  def state(self) -> State:
    """'compiling' until `warm_up` is done, 'stopping' after `begin_shutdown`."""
    if self._stopping:
      return 'stopping'
    return 'ready' if self.compiled == len(self.model.buckets) else 'compiling'

  def warm_up(self, report: Callable[[str], None]) -> None:
    """Runs a batch of each size, so that no request waits for a compilation."""
    size = self.model.description.image_size
    pixels = np.zeros((size, size, 3), np.uint8)
    example = self.model.prepare(pixels, WARM_UP_PROMPT)
    for number, rows in enumerate(self.model.buckets, 1):
      start = time.perf_counter()
      self.model.score_examples([example] * rows)
      self.compiled = number
      report(
        f'Compiled batch size {rows}, {number} of {len(self.model.buckets)}, in '
        f'{time.perf_counter() - start:.1f} s'
      )
      if self.state == 'stopping':
        return

  async def score(self, read: Callable[[], ParsedRequest]) -> bytes:
    """Returns the answer as JSON.

    Args:
      read: returns the request; called in a thread.

    Raises:
      InputError: the request cannot be used.
      FloatingPointError: the model's scores are not finite.
    """
    prepared = self._in_thread(self._prepare, read)
    # It holds the body, which need not stay in memory while the image waits.
    del read
    example, maps = await prepared
    feedback = await asyncio.wrap_future(self._batcher.submit(example))
    return await self._in_thread(_encode, feedback, maps)

  def begin_shutdown(self) -> None:
    """Stops admitting requests and waiting for batches to fill.

    May be called from a signal handler.
    """
    self._stopping = True
    self._batcher.stop_waiting()

  def stop(self, timeout: float | None = None) -> bool:
    """Finishes queued requests; returns whether that took at most `timeout` seconds."""
    self.begin_shutdown()
    done = self._batcher.stop(timeout)
    self._pool.shutdown(wait=False)
    return done

  def _in_thread(self, function: Callable, *arguments) -> asyncio.Future:
    loop = asyncio.get_running_loop()
    return loop.run_in_executor(self._pool, function, *arguments)

  def _prepare(self, read: Callable[[], ParsedRequest]) -> tuple[Example, bool]:
    request = read()
    example = self.model.prepare(_decode(request.image), request.prompt)
    return example._replace(image=None), request.maps

  def _run(self, examples: Sequence[Example]) -> list[Feedback]:
    start = time.perf_counter()
    found = self.model.score_examples(examples)
    self.metrics.compute_seconds.observe(time.perf_counter() - start)
    self.metrics.batch_size.observe(len(examples))
    return found


def _decode(image: bytes) -> UInt8[np.ndarray, 'H W 3']:
  try:
    return inputs.read_pixels(image)
  except InputError as error:
    raise InputError(f'image: {error}') from None
  except MemoryError:
    raise  # The same image may succeed later.
  except Exception as error:
    # Decoders can fail on unusual files in unforeseen ways.
    _log.exception('The decoder failed on an image of %d bytes', len(image))
    name = type(error).__name__
    raise InputError(
      f'image: the decoder failed ({name}); save the image again and retry'
    ) from None


def _encode(feedback: Feedback, maps: bool) -> bytes:
  if not all(map(math.isfinite, feedback.scores.values())):
    raise FloatingPointError("the model's scores are not finite")
  found = feedback.to_dict(maps=maps)
  return json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
