"""Scores a stream of rows with several scorers, in constant memory.

Threads read and prepare images while the devices work on earlier ones; each image is
decoded once for all scorers.
"""

import concurrent.futures
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from rahf.data.pipeline.prefetch import prefetch
from rahf.inference.feedback import Feedback
from rahf.inference.scorer import Example, Scorer

Row = TypeVar('Row')
Info = TypeVar('Info')


class Prepared(NamedTuple, Generic[Info]):
  """A row that is ready to be scored.

  Attributes:
    info: whatever the caller wants back beside the feedback.
    images: for each image of the row an example of each scorer; () for a row that
      cannot be scored.
  """

  info: Info
  images: Sequence[Sequence[Example]] = ()


class Scored(NamedTuple, Generic[Info]):
  """A row with its feedback.

  Attributes:
    info: as prepared.
    images: for each image of the row the feedback by scorer; () if there are none.
  """

  info: Info
  images: Sequence[Mapping[str, Feedback]]


def score_stream(
  scorers: Mapping[str, Scorer],
  rows: Iterable[Row],
  prepare: Callable[[Row], Prepared[Info]],
  bar: tqdm,
  *,
  images_per_row: int = 1,
  scores_only: bool = False,
) -> Iterator[Scored[Info]]:
  """Yields all rows in order, and advances the progress bar by each.

  Args:
    scorers: by name, all of one batch size.
    prepare: called by several threads at once.
    images_per_row: at most; decides how many rows fill a batch.
    scores_only: see `Scorer.score_examples`.
  """
  size = max(next(iter(scorers.values())).buckets[-1] // images_per_row, 1)
  rows = iter(rows)
  batches = iter(lambda: list(itertools.islice(rows, size)), [])
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for batch in prefetch(batches, lambda batch: [*pool.map(prepare, batch)]):
      found = _score(scorers, batch, scores_only)
      for one in batch:
        yield Scored(one.info, [next(found) for _ in one.images])
      bar.update(len(batch))


def _score(
  scorers: Mapping[str, Scorer], batch: Sequence[Prepared], scores_only: bool
) -> Iterator[dict[str, Feedback]]:
  """Yields the feedback for each image of each row, by scorer."""
  images = [image for one in batch for image in one.images]
  columns = [
    scorer.score_examples([image[number] for image in images], scores_only=scores_only)
    for number, scorer in enumerate(scorers.values())
  ]
  for feedback in zip(*columns, strict=True):
    yield dict(zip(scorers, feedback, strict=True))


def prepare_image(
  scorers: Mapping[str, Scorer], pixels: UInt8[np.ndarray, 'H W 3'], prompt: str
) -> list[Example]:
  """Returns an example for each scorer.

  They hold the pixels at the sizes of the models, and not the image itself, which
  takes the most memory.
  """
  return [
    scorer.prepare(pixels, prompt)._replace(image=None) for scorer in scorers.values()
  ]
