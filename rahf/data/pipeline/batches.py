"""The input pipeline: from a prepared split to batches of fixed shapes.

The order is a function of (seed, epoch), and augmentation of (seed, epoch, example).
Any position in the endless stream of examples can be computed directly, so training
resumes at any step with exactly the batches it would have seen.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import tensorflow as tf
from absl import logging
from etils import epath
from jaxtyping import Bool, Int64

from rahf.data import schema
from rahf.data.clip_tokenizer import ClipTokenizer
from rahf.data.images import codec
from rahf.data.pipeline import augment, mixture, selection
from rahf.data.pipeline.decoding import PipelineOptions, decode_record
from rahf.data.storage.records import RecordSplit, concatenate, parse_record
from rahf.data.tokenizer import Tokenizer, tasks
from rahf.errors import InputError

# TensorFlow only loads data; the accelerators' memory is left to JAX.
tf.config.set_visible_devices([], 'GPU')

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

  Raises:
    InputError: no prompt is within the word limits, or a record of the next batch is
      damaged.
  """
  rows = _Rows(batch_size, rows)
  split = concatenate(splits)
  captions = [False] * len(splits) if captions is None else captions
  starts = np.cumsum([0, *map(len, splits)])[:-1]
  selected = [
    selection.select(split, options, captions=is_captions)
    for split, is_captions in zip(splits, captions, strict=True)
  ]
  counts, sizes = mixture.shares(weights), np.array([len(one) for one in selected])
  # The data sets' selected examples are concatenated.
  firsts = np.cumsum([0, *sizes])[:-1]
  examples = np.concatenate(
    [start + one for start, one in zip(starts, selected, strict=True)]
  )

  def example_key(row: tf.Tensor) -> _ExampleKey:
    drawn = mixture.draw(rows.position(row), counts, sizes, seed)
    index = tf.gather(examples, tf.gather(firsts, drawn.source) + drawn.example)
    return _ExampleKey(index, augment.example_seed(seed, drawn.epoch, index))

  stream = _Stream(
    split,
    tokenizer,
    options,
    example_key,
    starts,
    np.array(captions),
    options.augment,
    options.max_skipped,
  )
  return stream.batches(start_step * len(rows), tf.int64.max, len(rows))


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

  def example_key(row: tf.Tensor) -> _ExampleKey:
    position = rows.position(row)
    index = tf.where(position < len(split), position, -1)
    return _ExampleKey(index, tf.zeros([2], tf.int64))

  steps = -(-len(split) // batch_size)
  stream = _Stream(
    split,
    tokenizer,
    options,
    example_key,
    starts=np.zeros(1, int),
    captions=np.array([captions]),
    augmented=False,
  )
  blank = functools.partial(_blank_padding, tokenizer.end_id)
  return map(blank, stream.batches(0, steps * len(rows), len(rows)))


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


class _ExampleKey(NamedTuple):
  index: Int64[tf.Tensor, '']  # of the record in its split, -1 for padding
  seed: Int64[tf.Tensor, '2']  # of its augmentation


@dataclasses.dataclass(frozen=True)
class _Stream:
  """Batches of rows, each of which is a function of its number alone."""

  split: RecordSplit
  tokenizer: Tokenizer | ClipTokenizer
  options: PipelineOptions
  example_key: Callable[[tf.Tensor], _ExampleKey]
  starts: Int64[np.ndarray, 'S']  # index of each data set's first record
  captions: Bool[np.ndarray, 'S']  # whether its texts are captions to predict
  augmented: bool
  max_skipped: int = 0

  def batches(
    self, first: int, last: int, local: int
  ) -> Iterator[schema.Batch | schema.ImageBatch]:
    """Yields the rows from `first` up to `last`, `local` at a time."""
    # The record to read for each index: itself, unless it has turned out damaged.
    read = np.arange(len(self.split))
    batch_type = schema.Batch if self.options.labels else schema.ImageBatch
    start = first
    while start < last:
      iterator = self._dataset(start, last, local, read).as_numpy_iterator()
      while start < last:
        try:
          batch = next(iterator)
        except tf.errors.OpError:
          self._skip_damaged(range(start, start + local), read)
          break
        yield batch_type(**batch)
        start += local

  def _dataset(
    self, first: int, last: int, local: int, read: Int64[np.ndarray, 'n']
  ) -> tf.data.Dataset:
    return (
      tf.data.Dataset.range(first, last)
      .map(functools.partial(self._load, tf.constant(read)), tf.data.AUTOTUNE)
      .batch(local, drop_remainder=True)
      .prefetch(tf.data.AUTOTUNE)
    )

  def _load(self, read: tf.Tensor, row: tf.Tensor) -> dict[str, tf.Tensor]:
    index, seed = self.example_key(row)
    # Padding rows read the first record and are blanked afterwards.
    serialized = self.split.read_serialized(tf.gather(read, tf.maximum(index, 0)))
    crop, colour = tf.unstack(tf.random.split(seed, 2))
    box = augment.random_box(crop) if self.augmented else tf.constant(codec.WHOLE_IMAGE)
    source = tf.searchsorted(self.starts, [tf.maximum(index, 0)], side='right')[0] - 1
    example = self._decode(serialized, box, tf.gather(self.captions, source))
    example['image'] = tf.cast(example['image'], tf.float32) / 255
    if self.augmented:
      example = augment.jitter(example, colour)
    image = codec.to_signed(example['image'])
    return example | {'image': image, 'index': tf.cast(index, tf.int32)}

  def _decode(
    self, serialized: tf.Tensor, box: tf.Tensor, caption: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """Runs `decode_record` as a Python function and declares its shapes."""
    specs = _decoded_specs(self.options)

    def decode(data: bytes, box: np.ndarray, caption: bool) -> list[np.ndarray]:
      record = parse_record(data)
      decoded = decode_record(
        record, self.tokenizer, self.options, box, caption=caption
      )
      return [decoded[name] for name in specs]

    dtypes = [spec.dtype for spec in specs.values()]
    inputs = [serialized, box, caption]
    values = tf.numpy_function(decode, inputs, dtypes, stateful=False)
    return {
      name: tf.ensure_shape(value, spec.shape)
      for (name, spec), value in zip(specs.items(), values, strict=True)
    }

  def _skip_damaged(self, rows: Iterable[int], read: Int64[np.ndarray, 'n']) -> None:
    """Finds the damaged record and substitutes the next one for it.

    TensorFlow's errors do not name the record, and searching only after an error costs
    nothing otherwise. The substitute depends on the data alone, so that a resumed run
    sees the same batches.

    Raises:
      InputError: `max_skipped` records have been skipped already; names the record.
    """
    for row in rows:
      index = int(read[max(int(self.example_key(tf.constant(row, tf.int64)).index), 0)])
      problem = self._problem_with(index)
      if not problem:
        continue
      following = self._following(index)
      num_skipped = int(np.sum(read != np.arange(len(read))))
      if num_skipped >= self.max_skipped or read[following] == index:
        raise InputError(problem)
      logging.warning(
        'Skipped a damaged record, %d of at most %d: %s',
        num_skipped + 1,
        self.max_skipped,
        problem,
      )
      read[read == index] = read[following]
      return
    raise OSError(
      'a batch could not be read, but now all of its records can: the storage was '
      'unavailable for a moment; run the same command to continue'
    )

  def _following(self, index: int) -> int:
    """Returns the next record of the same data set, cyclically."""
    ends = [*self.starts[1:], len(self.split)]
    source = self._source(index)
    return index + 1 if index + 1 < ends[source] else int(self.starts[source])

  def _source(self, index: int) -> int:
    """Returns the data set of a record."""
    return int(np.searchsorted(self.starts, index, side='right')) - 1

  def _problem_with(self, index: int) -> str:
    """Returns what is wrong with a record and where it is; '' if it is valid."""
    folder = epath.Path(self.split.files[self.split.shard[index]]).parent
    advice = f'`python -m rahf.data verify {folder}` lists all damaged records'
    where = ''  # Errors from reading the record include it.
    try:
      record = self.split[index]
      where = f'{self.split.where(index)} uid {record.uid!r}, cannot be used: '
      caption = bool(self.captions[self._source(index)])
      decode_record(record, self.tokenizer, self.options, caption=caption)
    except ValueError as error:
      return f'{where}{error}; {advice}'
    return ''


def _decoded_specs(options: PipelineOptions) -> dict[str, tf.TensorSpec]:
  """Returns the shapes and dtypes of `decode_record`'s result."""
  size = options.image_size
  texts = len(tasks(options.variant))
  if not options.labels:
    return {
      'image': tf.TensorSpec([size, size, 3], tf.uint8),
      'text': tf.TensorSpec([options.text_length], tf.int32),
      'truncated': tf.TensorSpec([], tf.bool),
    }
  return {
    'image': tf.TensorSpec([size, size, 3], tf.uint8),
    'maps': tf.TensorSpec([len(schema.MAPS), size, size], tf.float32),
    'map_mask': tf.TensorSpec([len(schema.MAPS)], tf.bool),
    'scores': tf.TensorSpec([len(schema.SCORES)], tf.float32),
    'score_mask': tf.TensorSpec([len(schema.SCORES)], tf.bool),
    'text': tf.TensorSpec([texts, options.text_length], tf.int32),
    'word_end': tf.TensorSpec([options.text_length], tf.bool),
    'target': tf.TensorSpec([options.target_length], tf.int32),
    'keyword_mask': tf.TensorSpec([], tf.bool),
    'truncated': tf.TensorSpec([], tf.bool),
  }


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
