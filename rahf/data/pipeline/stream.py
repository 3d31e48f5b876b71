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

# A call of Python has a fixed price, so one call decodes several small images: at most
# so many pixels. Large ones are decoded one by one, by several threads.
_PIXELS_AT_ONCE = 2**17

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


class _ReadRow(NamedTuple):
  """A row that is read, but not decoded; `box` is its crop."""

  index: tf.Tensor
  serialized: tf.Tensor
  caption: tf.Tensor
  box: tf.Tensor
  colours: augment.ColourChange


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
        # From groups of rows to rows.
        whole = {
          name: values.reshape(rows, *values.shape[2:])
          for name, values in batch.items()
        }
        yield Made(batch_type(**whole), tuple(damaged))
        damaged.clear()
        steps = steps[1:]

  def _dataset(
    self, steps: range, rows: int, read: Int64[np.ndarray, 'n']
  ) -> tf.data.Dataset:
    def rows_of(step: tf.Tensor) -> tf.data.Dataset:
      return tf.data.Dataset.range(step * rows, (step + 1) * rows)

    group = _group_size(rows, self.options.image_size)
    return (
      tf.data.Dataset.range(steps.start, steps.stop, steps.step)
      .flat_map(rows_of)
      .map(functools.partial(self._read, tf.constant(read)), tf.data.AUTOTUNE)
      .batch(group, drop_remainder=True)
      .map(self._decode, tf.data.AUTOTUNE)
      .batch(rows // group, drop_remainder=True)
      .prefetch(tf.data.AUTOTUNE)
    )

  def _read(self, read: tf.Tensor, row: tf.Tensor) -> _ReadRow:
    index, seed = self.example_key(row)
    # Padding rows read the first record and are blanked afterwards.
    record = tf.maximum(index, 0)
    crop, colours = tf.unstack(tf.random.split(seed, 2))
    whole = tf.constant(codec.WHOLE_IMAGE)
    source = tf.searchsorted(self.starts, [record], side='right')[0] - 1
    return _ReadRow(
      index=tf.cast(index, tf.int32),
      serialized=self.split.read_serialized(tf.gather(read, record)),
      caption=tf.gather(self.captions, source),
      box=augment.random_box(crop) if self.augmented else whole,
      colours=augment.draw_colour_change(colours),
    )

  def _decode(self, rows: _ReadRow) -> dict[str, tf.Tensor]:
    """Decodes a group of rows, and changes their colours."""
    examples = self._decode_records(rows)
    image = tf.cast(examples['image'], tf.float32) / 255
    if self.augmented:
      image = augment.change_colours(image, rows.colours)
    return examples | {'image': codec.to_signed(image), 'index': rows.index}

  def _decode_records(self, rows: _ReadRow) -> dict[str, tf.Tensor]:
    """Runs `decode_record` as a Python function and declares its shapes."""
    specs = _decoded_specs(self.options)

    def decode(
      records: np.ndarray, boxes: np.ndarray, captions: np.ndarray
    ) -> list[np.ndarray]:
      decoded = [
        decode_record(
          parse_record(data), self.tokenizer, self.options, box, caption=caption
        )
        for data, box, caption in zip(records, boxes, captions, strict=True)
      ]
      return [np.stack([one[name] for one in decoded]) for name in specs]

    dtypes = [spec.dtype for spec in specs.values()]
    inputs = [rows.serialized, rows.box, rows.caption]
    values = tf.numpy_function(decode, inputs, dtypes, stateful=False)
    return {
      name: tf.ensure_shape(value, [rows.index.shape[0], *spec.shape])
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


def _group_size(rows: int, image_size: int) -> int:
  """Returns how many rows one call decodes, a divisor of all rows of a batch."""
  most = max(_PIXELS_AT_ONCE // image_size**2, 1)
  return max(size for size in range(1, min(rows, most) + 1) if rows % size == 0)


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
