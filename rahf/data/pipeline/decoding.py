"""Decodes a record, or a prompt, into one row of a batch."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from rahf.data import schema
from rahf.data.clip_tokenizer import ClipTokenizer
from rahf.data.images import clip_image, codec
from rahf.data.tokenizer import (
  PromptPieces,
  Tokenizer,
  Variant,
  pad,
  prompt_texts,
  word_end_mask,
)


@dataclasses.dataclass(frozen=True)
class PipelineOptions:
  """Options of the input pipeline.

  Attributes:
    image_size: height and width of images and maps, in pixels.
    text_length: L, ids of a text including EOS.
    target_length: T, ids of a target including EOS.
    variant: 'augmented_prompt' has 7 texts per image, 'multi_head' 1.
    augment: whether to augment training batches; evaluation batches never are.
    min_words, max_words: training leaves out prompts with fewer or more words (3 and 30
      in the supplement). None: no limit.
    aligned_only: training leaves out prompts that have misaligned words, or whose words
      are not annotated.
    limit, limit_seed: training takes only so many examples of each data set, drawn by
      the seed; with a larger limit the same ones and more. 0: all.
    max_skipped: how many damaged records a training process may skip; the next record
      takes their place. Evaluation skips none.
    labels: whether to decode labels; without them batches are `schema.ImageBatch`.
    caption_prompt: the prompt of records whose own text is a caption to predict.
  """

  image_size: int
  text_length: int
  target_length: int
  variant: Variant = 'augmented_prompt'
  augment: bool = True
  min_words: int | None = None
  max_words: int | None = None
  aligned_only: bool = False
  limit: int = 0
  limit_seed: int = 0
  max_skipped: int = 0
  labels: bool = True
  caption_prompt: str = ''


class PromptRow(NamedTuple):
  """The model's input for one prompt.

  Attributes:
    pieces: of the whole prompt.
    text: token ids of the K texts, each with EOS and padding.
    word_end: True at the token right after each word of the plain prompt.
    truncated: whether a text was cut.
  """

  pieces: PromptPieces
  text: Int32[np.ndarray, 'K L']
  word_end: Bool[np.ndarray, 'L']
  truncated: bool


def encode_prompt(
  prompt: str,
  tokenizer: Tokenizer,
  variant: Variant,
  length: int,
  spans: Sequence[tuple[int, int]] | None = None,
  tasks: Sequence[str] | None = None,
) -> PromptRow:
  """Tokenises one prompt to texts of `length` tokens, as in training.

  Args:
    spans: of the words, see `Tokenizer.encode`.
    tasks: the prefix of each text; None for the variant's.
  """
  pieces = tokenizer.encode(prompt, spans)
  texts = prompt_texts(tokenizer, pieces, variant, length, tasks)
  return PromptRow(pieces, texts.ids, word_end_mask(pieces, length), texts.truncated)


def decode_record(
  record: schema.Record,
  tokenizer: Tokenizer | ClipTokenizer,
  options: PipelineOptions,
  box: codec.Box = codec.WHOLE_IMAGE,
  *,
  caption: bool = False,
) -> dict[str, np.ndarray]:
  """Decodes, crops, scales and tokenises one record.

  Data format of the result; H and W are the image size:
    image         uint8[H, W, 3]     RGB, row 0 at the top
    maps          float32[2, H, W]   [0, 1], order of schema.MAPS; 0 if not annotated
    map_mask      bool[2]
    scores        float32[4]         [0, 1], order of schema.SCORES; 0 if not annotated
    score_mask    bool[4]
    text          int32[K, L]        token ids, EOS, padding
    word_end      bool[L]            the token comes right after a word
    target        int32[T]           token ids with marks, EOS, padding
    keyword_mask  bool[]             the target counts
    truncated     bool[]             text or target was cut
  Without `options.labels` only image, text[L], that of the plain prompt, and truncated.

  Args:
    tokenizer: that of a CLIP gives the image and the text that CLIP sees, and no
      target: the square from the centre and the plain prompt. Maps are of the whole
      image.
    box: top, left, height, width of the crop, as fractions.
    caption: whether the record's text is a caption, which becomes the target instead of
      the text; its labels, if any, are not used. Not with the tokenizer of a CLIP.

  Raises:
    InputError: image or map cannot be decoded, or labels do not fit the prompt.
  """
  size = options.image_size
  image = codec.decode_image(record.image)
  if isinstance(tokenizer, ClipTokenizer):
    image = clip_image.crop(codec.cut(image, box), size, tokenizer.cleaning)
    texts = _clip_text(record, tokenizer, options)
  else:
    image = codec.resize(image, size, box)
    as_texts = _caption_texts if caption else _texts
    texts = as_texts(record, tokenizer, options)
  if not options.labels:
    return {
      'image': image,
      'text': texts['text'][-1],
      'truncated': texts['truncated'],
    }
  maps = [b'' if caption else getattr(record, f'{name}_map') for name in schema.MAPS]
  scores = np.array(record.scores, np.float32)
  if caption:
    scores[:] = np.nan
  return {
    'image': image,
    'maps': np.stack([_decode_map(data, size, box) for data in maps]),
    'map_mask': np.array([bool(data) for data in maps]),
    'scores': np.nan_to_num(scores, nan=0.0),
    'score_mask': ~np.isnan(scores),
    **texts,
  }


def _texts(
  record: schema.Record, tokenizer: Tokenizer, options: PipelineOptions
) -> dict[str, np.ndarray]:
  row = encode_prompt(record.prompt, tokenizer, options.variant, options.text_length)
  # Without labels, nothing is marked; keyword_mask excludes the target from the loss.
  labels = record.keyword_labels or [1] * len(row.pieces.word_ends)
  target = tokenizer.mark(row.pieces, labels)
  return {
    'text': row.text,
    'word_end': row.word_end,
    'target': pad(target, options.target_length),
    'keyword_mask': np.array(bool(record.keyword_labels)),
    'truncated': np.array(row.truncated or len(target) >= options.target_length),
  }


def _caption_texts(
  record: schema.Record, tokenizer: Tokenizer, options: PipelineOptions
) -> dict[str, np.ndarray]:
  row = encode_prompt(
    options.caption_prompt, tokenizer, options.variant, options.text_length
  )
  caption = tokenizer.encode(record.prompt).ids
  target = pad(caption, options.target_length)
  truncated = len(caption) >= options.target_length
  if truncated:
    # Without an end, as the caption does not end here.
    target[:] = caption[: options.target_length]
  return {
    'text': row.text,
    'word_end': np.zeros(options.text_length, bool),
    'target': target,
    'keyword_mask': np.array(True),
    'truncated': np.array(truncated),
  }


def _clip_text(
  record: schema.Record, tokenizer: ClipTokenizer, options: PipelineOptions
) -> dict[str, np.ndarray]:
  tokens = tokenizer.encode([record.prompt])
  return {
    'text': tokens.ids,
    'word_end': np.zeros(options.text_length, bool),
    'target': np.zeros(options.target_length, np.int32),
    'keyword_mask': np.array(False),
    'truncated': tokens.truncated[0],
  }


def _decode_map(data: bytes, size: int, box: codec.Box) -> np.ndarray:
  if not data:
    return np.zeros((size, size), np.float32)
  return codec.resize(codec.decode_map(data), size, box)
