"""One record to the arrays of a batch's row, on the host."""

import dataclasses

import numpy as np
import tensorflow as tf

from rahf.data import images, schema
from rahf.data.tokenizer import (
  Tokenizer,
  Variant,
  pad,
  prompt_texts,
  tasks,
  word_end_mask,
)


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
    max_skipped: how many damaged records a process may pass over in training since it
      started; the next record is read for each. Evaluation passes over none.
  """

  image_size: int
  text_length: int
  target_length: int
  variant: Variant = 'augmented_prompt'
  augment: bool = True
  min_words: int | None = None
  max_words: int | None = None
  max_skipped: int = 0


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


def decoded_specs(options: PipelineOptions) -> dict[str, tf.TensorSpec]:
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
