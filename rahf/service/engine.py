"""What the service does with an image and its prompt: decode, join, score, encode."""

import asyncio
import concurrent.futures
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from rahf.data.images import ImageError
from rahf.errors import InputError
from rahf.feedback import Example, Feedback, Model
from rahf.service.batcher import Batcher
from rahf.service.measures import Measures
from rahf.service.reading import Asked

State = Literal['compiling', 'ready', 'stopping']
# Any prompt compiles the same program.
WARM_UP_PROMPT = 'a'


class Engine:
  """A model that answers single requests, in batches.

  Attributes:
    model: the model.
    compiled: how many of `model.buckets` are.
    dropped: requests that were let in, but not answered before the service ended.
    measures: what is counted.
  """

  def __init__(self, model: Model, *, wait: float = 0.0):
    """Starts threads; see `Batcher` for `wait`, seconds."""
    self.model = model
    self.compiled = self.dropped = 0
    self._stopping = False
    self._batcher = Batcher(self._run, model.buckets, wait)
    self._pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count(), 'images')
    self.measures = Measures(model.buckets, lambda: self._batcher.waiting)
    self.measures.ready.set_function(lambda: self.state == 'ready')

  @property
  def state(self) -> State:
    """'compiling' until `warm_up` is through, 'stopping' since `end_soon`."""
    if self._stopping:
      return 'stopping'
    return 'ready' if self.compiled == len(self.model.buckets) else 'compiling'

  def warm_up(self, report: Callable[[str], None]) -> None:
    """Runs a batch of each size, so that no request waits for a compilation."""
    size = self.model.description.model.image_size
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

  async def score(self, read: Callable[[], Asked]) -> bytes:
    """Returns the answer as JSON.

    Args:
      read: gives what is asked; called in a thread.

    Raises:
      InputError: what was sent cannot be used.
      FloatingPointError: the model's scores are not finite.
    """
    prepared = self._in_thread(self._prepare, read)
    # It holds the body, which need not wait in the queue too.
    del read
    example, maps = await prepared
    feedback = await asyncio.wrap_future(self._batcher.submit(example))
    return await self._in_thread(_encode, feedback, maps)

  def end_soon(self) -> None:
    """Lets nothing new in, and no batch wait to fill up.

    A handler of signals may call it.
    """
    self._stopping = True
    self._batcher.hurry()

  def stop(self, timeout: float | None = None) -> bool:
    """Finishes what is queued; returns whether that is done in `timeout` seconds."""
    self.end_soon()
    done = self._batcher.stop(timeout)
    self._pool.shutdown(wait=False)
    return done

  def _in_thread(self, function: Callable, *arguments) -> asyncio.Future:
    loop = asyncio.get_running_loop()
    return loop.run_in_executor(self._pool, function, *arguments)

  def _prepare(self, read: Callable[[], Asked]) -> tuple[Example, bool]:
    asked = read()
    try:
      example = self.model.prepare(asked.image, asked.prompt)
    except ImageError as error:
      raise InputError(f'image: {error}') from None
    return example._replace(image=None), asked.maps

  def _run(self, examples: Sequence[Example]) -> list[Feedback]:
    start = time.perf_counter()
    found = self.model.score_examples(examples)
    self.measures.compute_seconds.observe(time.perf_counter() - start)
    self.measures.batch_size.observe(len(examples))
    return found


def _encode(feedback: Feedback, maps: bool) -> bytes:
  if not all(map(math.isfinite, feedback.scores.values())):
    raise FloatingPointError('its scores are not finite')
  found = feedback.to_dict(maps=maps)
  return json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
