"""The input pipeline: a prepared split to batches of fixed shapes.

The order is a function of (seed, epoch), and augmentation of (seed, epoch, example):
every position in the endless stream of examples is computed, not reached, so that
training resumes at any step with exactly the batches it would have seen.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from etils import epath
from jaxtyping import Int64

from rahf.data import augment, images, mixture, schema
from rahf.data.records import RecordSplit, concatenate, parse_record
from rahf.data.tokenizer import (
  EOS,
  Tokenizer,
  Variant,
  pad,
  prompt_texts,
  tasks,
  word_end_mask,
)
from rahf.errors import InputError

# TensorFlow only feeds; an accelerator's memory belongs to JAX.
tf.config.set_visible_devices([], 'GPU')


@dataclasses.dataclass(frozen=True)
class PipelineOptions:
  """What a batch looks like.

  Attributes:
    image_size: height and width of images and maps, pixels.
    text_length: L, ids of a text with its EOS.
    target_length: T, ids of a target with its EOS.
    variant: 'augmented_prompt' reads an image with 7 texts, 'multi_head' with 1.
    augment: whether training batches are augmented; evaluation never is.
    min_words, max_words: training leaves out prompts with fewer or more words (the
      supplement: 3 and 30). None: no limit.
  """

  image_size: int
  text_length: int
  target_length: int
  variant: Variant = 'augmented_prompt'
  augment: bool = True
  min_words: int | None = None
  max_words: int | None = None


def train_batches(
  splits: Sequence[RecordSplit],
  tokenizer: Tokenizer,
  options: PipelineOptions,
  *,
  batch_size: int,
  seed: int,
  start_step: int,
  weights: Sequence[float] = (1.0,),
  rows: Sequence[int] | None = None,
) -> Iterator[schema.Batch]:
  """Returns every batch from `start_step` on, without end.

  Args:
    splits: of each data set; `index` counts through all of them.
    batch_size: rows of all processes together.
    seed: of order and augmentation.
    start_step: number of the first batch; 0 at the start of training.
    weights: of the data sets, which have shares of the examples like them.
    rows: which of a batch's rows this process needs; None for all.

  Raises:
    InputError: the word limits leave nothing, or, when its batch comes, a record is
      damaged.
  """
  rows = _Rows(batch_size, rows)
  split = concatenate(splits)
  starts = np.cumsum([0, *map(len, splits)])[:-1]
  selected = [_selected(one, options) for one in splits]
  counts, sizes = mixture.shares(weights), np.array([len(one) for one in selected])
  # Behind one another, each with its own start.
  firsts = np.cumsum([0, *sizes])[:-1]
  examples = np.concatenate(
    [start + one for start, one in zip(starts, selected, strict=True)]
  )

  def place(row: tf.Tensor) -> _Place:
    drawn = mixture.draw(rows.position(row), counts, sizes, seed)
    index = tf.gather(examples, tf.gather(firsts, drawn.source) + drawn.example)
    return _Place(index, augment.example_seed(seed, drawn.epoch, index))

  stream = _Stream(split, tokenizer, options, place, options.augment)
  return stream.batches(start_step * len(rows), tf.int64.max, len(rows))


def eval_batches(
  split: RecordSplit,
  tokenizer: Tokenizer,
  options: PipelineOptions,
  *,
  batch_size: int,
  rows: Sequence[int] | None = None,
) -> Iterator[schema.Batch]:
  """Returns the batches that hold every example once, in order.

  All processes get the same number of batches. The last is filled up with padding
  rows: index -1, all masks False, images and maps 0, texts a single EOS.

  Args:
    batch_size: rows of all processes together.
    rows: which of a batch's rows this process needs; None for all.

  Raises:
    InputError: when its batch comes, a record is damaged.
  """
  rows = _Rows(batch_size, rows)

  def place(row: tf.Tensor) -> _Place:
    position = rows.position(row)
    index = tf.where(position < len(split), position, -1)
    return _Place(index, tf.zeros([2], tf.int64))

  steps = -(-len(split) // batch_size)
  stream = _Stream(split, tokenizer, options, place, augmented=False)
  return map(_blank_padding, stream.batches(0, steps * len(rows), len(rows)))


def decode_record(
  record: schema.Record,
  tokenizer: Tokenizer,
  options: PipelineOptions,
  box: images.Box = images.WHOLE,
) -> dict[str, np.ndarray]:
  """Decodes one record, cuts out the box, scales and tokenises.

  Data format, after; H and W are the image size:
    image         uint8[H, W, 3]     RGB, row 0 at the top
    maps          float32[2, H, W]   [0, 1], order of schema.MAPS; 0 if not annotated
    map_mask      bool[2]
    scores        float32[4]         [0, 1], order of schema.SCORES; 0 if not annotated
    score_mask    bool[4]
    text          int32[K, L]        token ids, EOS, padding
    target        int32[T]           token ids with marks, EOS, padding
    keyword_mask  bool[]
    truncated     bool[]             text or target was cut

  Args:
    box: top, left, height, width of what is kept, as fractions.

  Raises:
    InputError: image or map cannot be decoded, or labels do not fit the prompt.
  """
  size = options.image_size
  maps = [getattr(record, f'{name}_map') for name in schema.MAPS]
  scores = np.array(record.scores, np.float32)
  pieces = tokenizer.encode(record.prompt)
  text = prompt_texts(tokenizer, pieces, options.variant, options.text_length)
  # Without labels nothing is marked; the mask keeps the target out of the loss.
  labels = record.keyword_labels or [1] * len(pieces.word_ends)
  target = tokenizer.mark(pieces, labels)
  return {
    'image': images.resize(images.decode_image(record.image), size, box),
    'maps': np.stack([_decode_map(data, size, box) for data in maps]),
    'map_mask': np.array([bool(data) for data in maps]),
    'scores': np.nan_to_num(scores, nan=0.0),
    'score_mask': ~np.isnan(scores),
    'text': text.ids,
    'word_end': word_end_mask(pieces, options.text_length),
    'target': pad(target, options.target_length),
    'keyword_mask': np.array(bool(record.keyword_labels)),
    'truncated': np.array(text.truncated or len(target) >= options.target_length),
  }


def _decode_map(data: bytes, size: int, box: images.Box) -> np.ndarray:
  if not data:
    return np.zeros((size, size), np.float32)
  return images.resize(images.decode_map(data), size, box)


class _Rows:
  """Which rows of every batch a process reads."""

  def __init__(self, batch_size: int, rows: Sequence[int] | None):
    self._batch_size = batch_size
    self._rows = np.arange(batch_size) if rows is None else np.asarray(rows)

  def __len__(self) -> int:
    return len(self._rows)

  def position(self, row: tf.Tensor) -> tf.Tensor:
    """Returns where a process's row, counted from step 0, stands in the stream."""
    return row // len(self) * self._batch_size + tf.gather(self._rows, row % len(self))


class _Place(NamedTuple):
  index: Int64[tf.Tensor, '']  # Of the record in its split, -1 for padding.
  seed: Int64[tf.Tensor, '2']  # Of its augmentation.


@dataclasses.dataclass(frozen=True)
class _Stream:
  """Rows, each computed from its number alone, and gathered to batches."""

  split: RecordSplit
  tokenizer: Tokenizer
  options: PipelineOptions
  place: Callable[[tf.Tensor], _Place]
  augmented: bool

  def batches(self, first: int, last: int, local: int) -> Iterator[schema.Batch]:
    """Yields the rows from `first` up to `last`, `local` at a time."""
    dataset = (
      tf.data.Dataset.range(first, last)
      .map(self._load, tf.data.AUTOTUNE, deterministic=True)
      .batch(local, drop_remainder=True)
      .prefetch(tf.data.AUTOTUNE)
    )
    iterator = dataset.as_numpy_iterator()
    for start in range(first, last, local):
      try:
        batch = next(iterator)
      except tf.errors.OpError:
        self._explain(range(start, start + local))
        raise
      yield schema.Batch(**batch)

  def _load(self, row: tf.Tensor) -> dict[str, tf.Tensor]:
    index, seed = self.place(row)
    # Padding rows read the first record; what they hold is blanked afterwards.
    serialized = self.split.read_serialized(tf.maximum(index, 0))
    crop, colour = tf.unstack(tf.random.split(seed, 2))
    box = augment.random_box(crop) if self.augmented else tf.constant(images.WHOLE)
    example = self._decode(serialized, box)
    example['image'] = tf.cast(example['image'], tf.float32) / 255
    if self.augmented:
      example = augment.jitter(example, colour)
    image = example['image'] * 2 - 1
    return example | {'image': image, 'index': tf.cast(index, tf.int32)}

  def _decode(self, serialized: tf.Tensor, box: tf.Tensor) -> dict[str, tf.Tensor]:
    """Runs `decode_record` on the host and tells TensorFlow the shapes."""
    specs = _decoded_specs(self.options)

    def decode(data: bytes, box: np.ndarray) -> list[np.ndarray]:
      decoded = decode_record(parse_record(data), self.tokenizer, self.options, box)
      return [decoded[name] for name in specs]

    dtypes = [spec.dtype for spec in specs.values()]
    values = tf.numpy_function(decode, [serialized, box], dtypes, stateful=False)
    return {
      name: tf.ensure_shape(value, spec.shape)
      for (name, spec), value in zip(specs.items(), values, strict=True)
    }

  def _explain(self, rows: Iterable[int]) -> None:
    """Raises InputError naming the record for which reading or decoding fails.

    TensorFlow's errors name no record; looking for it afterwards costs nothing as
    long as all is well.
    """
    for row in rows:
      index = max(int(self.place(tf.constant(row, tf.int64)).index), 0)
      shard = self.split.files[self.split.shard[index]]
      folder = epath.Path(shard).parent
      advice = f'`python -m rahf.data verify {folder}` lists all such'
      where = ''  # An error of reading says it itself.
      try:
        record = self.split[index]
        where = f'{self.split.where(index)} uid {record.uid!r}, cannot be used: '
        decode_record(record, self.tokenizer, self.options)
      except ValueError as error:
        raise InputError(f'{where}{error}; {advice}') from None


def _decoded_specs(options: PipelineOptions) -> dict[str, tf.TensorSpec]:
  """Returns shape and dtype of what `decode_record` gives."""
  size = options.image_size
  texts = len(tasks(options.variant))
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


def _selected(split: RecordSplit, options: PipelineOptions) -> np.ndarray:
  """Returns the positions of the records within the word limits."""
  if options.min_words is None and options.max_words is None:
    return np.arange(len(split))
  counts = split.word_counts()
  low, high = options.min_words or 0, options.max_words or np.inf
  selected = np.flatnonzero((low <= counts) & (counts <= high))
  if not len(selected):
    raise InputError(
      f'none of the {len(split)} prompts of {split.name} has {low} to {high} words; '
      'widen min_words and max_words or set them to None'
    )
  return selected


def _blank_padding(batch: schema.Batch) -> schema.Batch:
  """Empties the rows whose index is -1; a single EOS keeps attention defined."""
  padding = batch.index < 0
  if not padding.any():
    return batch
  blank = schema.Batch(*(np.array(values) for values in batch))
  for values in blank:
    values[padding] = 0
  blank.index[padding] = -1
  blank.text[padding, :, 0] = EOS
  blank.target[padding, 0] = EOS
  return blank
