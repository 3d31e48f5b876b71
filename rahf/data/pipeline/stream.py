"""Batches of one process, whose rows are functions of their numbers alone."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from etils import epath
from jaxtyping import Bool, Int64

from rahf.data import schema
from rahf.data.clip_tokenizer import ClipTokenizer
from rahf.data.images import codec
from rahf.data.pipeline import augment
from rahf.data.pipeline.decoding import PipelineOptions, decode_record
from rahf.data.storage.records import RecordSplit, parse_record
from rahf.data.tokenizer import Tokenizer, tasks
from rahf.errors import InputError

# TensorFlow only loads data; the accelerators' memory is left to JAX.
tf.config.set_visible_devices([], 'GPU')


class ExampleKey(NamedTuple):
  """Which record a row shows, and how it is augmented."""

  index: Int64[tf.Tensor, '']  # of the record in its split, -1 for padding
  seed: Int64[tf.Tensor, '2']  # of its augmentation


class Damaged(NamedTuple):
  """A record that was skipped, by its index, and what is wrong with it."""

  index: int
  problem: str


class Made(NamedTuple):
  """A batch, and the damaged records that were found while it was made."""

  batch: schema.Batch | schema.ImageBatch
  damaged: tuple[Damaged, ...]


@dataclasses.dataclass(frozen=True)
class Stream:
  """Batches of rows, each of which is a function of its number alone."""

  split: RecordSplit
  tokenizer: Tokenizer | ClipTokenizer
  options: PipelineOptions
  example_key: Callable[[tf.Tensor], ExampleKey]  # by number of the row
  starts: Int64[np.ndarray, 'S']  # index of each data set's first record
  captions: Bool[np.ndarray, 'S']  # whether its texts are captions to predict
  examples: Int64[np.ndarray, 'n']  # indices of the records to show, ascending
  augmented: bool
  max_skipped: int = 0

  def batches(self, steps: range, rows: int) -> Iterator[Made]:
    """Yields the batches of the steps; batch i has the rows from i * `rows` on.

    Raises:
      InputError: `max_skipped` records have been skipped already, or all records of a
        data set are damaged; names the record.
      OSError: the storage was unavailable for a moment.
    """
    # The record to read for each index: itself, unless it has turned out damaged.
    read = np.arange(len(self.split))
    batch_type = schema.Batch if self.options.labels else schema.ImageBatch
    damaged: list[Damaged] = []
    while steps:
      iterator = self._dataset(steps, rows, read).as_numpy_iterator()
      while steps:
        try:
          batch = next(iterator)
        except tf.errors.OpError:
          first = steps[0] * rows
          damaged.append(self._skip_damaged(range(first, first + rows), read))
          break
        yield Made(batch_type(**batch), tuple(damaged))
        damaged.clear()
        steps = steps[1:]

  def _dataset(
    self, steps: range, rows: int, read: Int64[np.ndarray, 'n']
  ) -> tf.data.Dataset:
    def rows_of(step: tf.Tensor) -> tf.data.Dataset:
      return tf.data.Dataset.range(step * rows, (step + 1) * rows)

    return (
      tf.data.Dataset.range(steps.start, steps.stop, steps.step)
      .flat_map(rows_of)
      .map(functools.partial(self._load, tf.constant(read)), tf.data.AUTOTUNE)
      .batch(rows, drop_remainder=True)
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

  def _skip_damaged(self, rows: Iterable[int], read: Int64[np.ndarray, 'n']) -> Damaged:
    """Finds the damaged record, substitutes the next one for it, and returns it.

    TensorFlow's errors do not name the record, and searching only after an error costs
    nothing otherwise. The substitute depends on the data alone, so that a resumed run
    sees the same batches.
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
      read[read == index] = read[following]
      return Damaged(index, problem)
    raise OSError(
      'a batch could not be read, but now all of its records can: the storage was '
      'unavailable for a moment; run the same command to continue'
    )

  def _following(self, index: int) -> int:
    """Returns the next of the records to show of the same data set, cyclically."""
    ends = [*self.starts[1:], len(self.split)]
    source = self._source(index)
    first, end = np.searchsorted(self.examples, [self.starts[source], ends[source]])
    place = int(np.searchsorted(self.examples, index, side='right'))
    return int(self.examples[place if place < end else first])

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
