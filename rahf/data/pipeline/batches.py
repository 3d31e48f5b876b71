"""The input pipeline: from a prepared split to batches of fixed shapes.

The order is a function of (seed, epoch), and augmentation of (seed, epoch, example).
Any position in the endless stream of examples can be computed directly, so training
resumes at any step with exactly the batches it would have seen.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import tensorflow as tf
from absl import logging
from jaxtyping import Int64

from rahf.data import schema
from rahf.data.clip_tokenizer import ClipTokenizer
from rahf.data.pipeline import augment, mixture, selection
from rahf.data.pipeline.decoding import PipelineOptions
from rahf.data.pipeline.stream import ExampleKey, Made, Stream
from rahf.data.pipeline.workers import in_turn
from rahf.data.storage.records import RecordSplit, concatenate
from rahf.data.tokenizer import Tokenizer
from rahf.errors import InputError

# More steps than any training has.
_ENDLESS = 2**40
AnyBatch = TypeVar('AnyBatch', schema.Batch, schema.ImageBatch)


def train_batches(
  splits: Sequence[RecordSplit],
  tokenizer: Tokenizer | ClipTokenizer,
  options: PipelineOptions,
  *,
  batch_size: int,
  seed: int,
  start_step: int,
  weights: Sequence[float] = (1.0,),
  captions: Sequence[bool] | None = None,
  rows: Sequence[int] | None = None,
  workers: int = 0,
) -> Iterator[schema.Batch | schema.ImageBatch]:
  """Returns an endless iterator over the batches from `start_step` on.

  Args:
    splits: one per data set; `index` numbers the records of all of them.
    batch_size: rows of all processes together.
    seed: of order and augmentation.
    start_step: number of the first batch; 0 at the start of training.
    weights: of the data sets; examples are drawn in proportion.
    captions: of each data set, whether its texts are captions to predict; None if no
      data set has captions.
    rows: which of a batch's rows this process needs; None for all.
    workers: how many processes make batches in turn, which changes nothing in them; 0
      for this one.

  Raises:
    InputError: no prompt is within the word limits, or a record of the next batch is
      damaged.
    OSError: the storage was unavailable for a moment, or a worker ended.
  """
  split = concatenate(splits)
  captions = [False] * len(splits) if captions is None else captions
  starts = np.cumsum([0, *map(len, splits)])[:-1]
  selected = [
    selection.select(split, options, captions=is_captions)
    for split, is_captions in zip(splits, captions, strict=True)
  ]
  sizes = np.array([len(one) for one in selected])
  examples = np.concatenate(
    [start + one for start, one in zip(starts, selected, strict=True)]
  )
  keys = _TrainKeys(
    _Rows(batch_size, rows),
    examples,
    np.cumsum([0, *sizes])[:-1],
    sizes,
    mixture.shares(weights),
    seed,
  )
  stream = Stream(
    split,
    tokenizer,
    options,
    keys,
    starts,
    np.array(captions),
    np.sort(examples),
    options.augment,
    options.max_skipped,
  )
  make = functools.partial(_batches_of_worker, stream, start_step, max(workers, 1))
  made = in_turn(make, workers) if workers else make(0)
  return _within_limit(made, options.max_skipped)


def _batches_of_worker(
  stream: Stream, start_step: int, workers: int, number: int
) -> Iterator[Made]:
  """Yields every `workers`-th batch; worker 0 makes the first."""
  steps = range(start_step + number, _ENDLESS, workers)
  return stream.batches(steps, len(stream.example_key.rows))


def _within_limit(
  made: Iterator[Made], max_skipped: int
) -> Iterator[schema.Batch | schema.ImageBatch]:
  """Yields the batches, and counts the damaged records of all workers together."""
  skipped = set()
  for batch, damaged in made:
    for index, problem in damaged:
      if index in skipped:
        continue
      if len(skipped) >= max_skipped:
        raise InputError(problem)
      skipped.add(index)
      logging.warning(
        'Skipped a damaged record, %d of at most %d: %s',
        len(skipped),
        max_skipped,
        problem,
      )
    yield batch


def eval_batches(
  split: RecordSplit,
  tokenizer: Tokenizer | ClipTokenizer,
  options: PipelineOptions,
  *,
  batch_size: int,
  captions: bool = False,
  rows: Sequence[int] | None = None,
) -> Iterator[schema.Batch | schema.ImageBatch]:
  """Returns batches that contain every example once, in order.

  All processes get the same number of batches. The last is completed with padding rows:
  index -1, all masks False, images and maps 0, texts a single EOS.

  Args:
    batch_size: rows of all processes together.
    captions: whether the texts are captions to predict.
    rows: which of a batch's rows this process needs; None for all.

  Raises:
    InputError: a record of the next batch is damaged.
  """
  rows = _Rows(batch_size, rows)

  def example_key(row: tf.Tensor) -> ExampleKey:
    position = rows.position(row)
    index = tf.where(position < len(split), position, -1)
    return ExampleKey(index, tf.zeros([2], tf.int64))

  steps = -(-len(split) // batch_size)
  stream = Stream(
    split,
    tokenizer,
    options,
    example_key,
    starts=np.zeros(1, int),
    captions=np.array([captions]),
    examples=np.arange(len(split)),
    augmented=False,
  )
  blank = functools.partial(_blank_padding, tokenizer.end_id)
  made = stream.batches(range(steps), len(rows))
  return (blank(batch) for batch, _ in made)


class _Rows:
  """The rows of every batch that one process reads."""

  def __init__(self, batch_size: int, rows: Sequence[int] | None):
    self._batch_size = batch_size
    self._rows = np.arange(batch_size) if rows is None else np.asarray(rows)

  def __len__(self) -> int:
    return len(self._rows)

  def position(self, row: tf.Tensor) -> tf.Tensor:
    """Returns the position in the stream of a process's row, counted from step 0."""
    return row // len(self) * self._batch_size + tf.gather(self._rows, row % len(self))


@dataclasses.dataclass(frozen=True)
class _TrainKeys:
  """Which example each row of the endless stream shows.

  Attributes:
    rows: of this process.
    examples: indices of the selected examples of all data sets, one set after another.
    firsts, sizes: where the examples of each data set begin, and how many there are.
    shares: of the data sets, see `mixture`.
    seed: of order and augmentation.
  """

  rows: _Rows
  examples: Int64[np.ndarray, 'n']
  firsts: Int64[np.ndarray, 'S']
  sizes: Int64[np.ndarray, 'S']
  shares: Int64[np.ndarray, 'S']
  seed: int

  def __call__(self, row: tf.Tensor) -> ExampleKey:
    drawn = mixture.draw(self.rows.position(row), self.shares, self.sizes, self.seed)
    index = tf.gather(
      self.examples, tf.gather(self.firsts, drawn.source) + drawn.example
    )
    return ExampleKey(index, augment.example_seed(self.seed, drawn.epoch, index))


def _blank_padding(end_id: int, batch: AnyBatch) -> AnyBatch:
  """Blanks the rows whose index is -1; a single end keeps attention well-defined."""
  padding = batch.index < 0
  if not padding.any():
    return batch
  blank = type(batch)(*(np.array(values) for values in batch))
  for values in blank:
    values[padding] = 0
  blank.index[padding] = -1
  blank.text[padding, ..., 0] = end_id
  if isinstance(blank, schema.Batch):
    blank.target[padding, 0] = end_id
  return blank
