"""Records on disk and batches in memory.

Data format, on disk (one `tf.train.Example` in the shards of a prepared data set):
  uid                bytes                 unique within the data set
  image              bytes                 PNG, JPEG or WEBP, unchanged
  prompt             bytes (UTF-8)         as given to the image generator
  tokens             bytes[T]              the prompt's `label_words.label_tokens`
  keyword_labels     int64[T] or []        1 aligned, 0 misaligned; [] not annotated
  scores             float32[4]            order of SCORES, [0, 1]; NaN not annotated
  implausibility_map bytes                 8-bit grey PNG or JPEG; b'' not annotated
  misalignment_map   bytes                 likewise
  keyword_shares     float32[T] or []      share of annotators who marked the word as
                                           misaligned, [0, 1]; [] unknown
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from rahf.data import label_words

SCORES = ('plausibility', 'alignment', 'aesthetics', 'overall')
MAPS = ('implausibility', 'misalignment')
# Where TFDS lists the shards of a prepared data set.
DATASET_INFO = 'dataset_info.json'
# The tokenizer that a data set may bring.
TOKENIZER_FILE = 'tokenizer.model'
SPLITS = ('train', 'dev', 'test')
# Of Pick-a-Pic; in the unique ones, each prompt has one pair.
PAIR_SPLITS = ('train', 'validation', 'test', 'validation_unique', 'test_unique')


class Record(NamedTuple):
  """One annotated image as stored; the module docstring describes the fields."""

  uid: str
  image: bytes
  prompt: str
  tokens: tuple[str, ...]
  keyword_labels: tuple[int, ...]
  scores: tuple[float, ...]
  implausibility_map: bytes
  misalignment_map: bytes
  keyword_shares: tuple[float, ...] = ()

  @classmethod
  def unlabelled(cls, uid: str, image: bytes, prompt: str) -> 'Record':
    """Returns a record of an image and its prompt, without labels."""
    return cls(
      uid=uid,
      image=image,
      prompt=prompt,
      tokens=tuple(label_words.label_tokens(prompt)),
      keyword_labels=(),
      scores=(math.nan,) * len(SCORES),
      implausibility_map=b'',
      misalignment_map=b'',
    )


class Batch(NamedTuple):
  """A batch of B examples as the model takes it; NumPy or JAX arrays.

  K is the number of texts per image: 1 for the multi-head variant, 7 for the augmented
  prompt (one per map and score, and one for the keywords).

  Attributes:
    index: position of the example in its split, -1 for a padding row.
    image: RGB in [-1, 1], row 0 at the top.
    text: token ids of the prompt, after a task string where K is 7; ends with EOS,
      0 is padding. The last of the K is the plain prompt.
    word_end: True at the token right after each word of the plain prompt.
    target: token ids of the prompt with its misaligned words marked; ends with
      EOS, 0 is padding.
    maps: order of MAPS, [0, 1], higher is worse.
    scores: order of SCORES, [0, 1], higher is better.
    map_mask, score_mask, keyword_mask: True where the label exists. All are
      False in padding rows.
    truncated: True where text or target was cut to the configured length.
  """

  index: Int[np.ndarray, 'B']
  image: Float[np.ndarray, 'B H W 3']
  text: Int[np.ndarray, 'B K L']
  word_end: Bool[np.ndarray, 'B L']
  target: Int[np.ndarray, 'B T']
  maps: Float[np.ndarray, 'B 2 H W']
  map_mask: Bool[np.ndarray, 'B 2']
  scores: Float[np.ndarray, 'B 4']
  score_mask: Bool[np.ndarray, 'B 4']
  keyword_mask: Bool[np.ndarray, 'B']
  truncated: Bool[np.ndarray, 'B']


class ImageBatch(NamedTuple):
  """A batch of B images with their prompts, without labels; NumPy or JAX arrays.

  Attributes:
    index: position of the example in its split, -1 for a padding row.
    image: RGB in [-1, 1], row 0 at the top.
    text: token ids of the prompt.
    truncated: True where the prompt lost tokens at its end.
  """

  index: Int[np.ndarray, 'B']
  image: Float[np.ndarray, 'B H W 3']
  text: Int[np.ndarray, 'B T']
  truncated: Bool[np.ndarray, 'B']


class PromptBatch(NamedTuple):
  """A batch of B prompts of which images are drawn; NumPy or JAX arrays.

  Attributes:
    index: position of the prompt in its list, -1 for a padding row.
    text: token ids for the generator.
    score_text: token ids for the RAHF that scores the images.
  """

  index: Int[np.ndarray, 'B']
  text: Int[np.ndarray, 'B T']
  score_text: Int[np.ndarray, 'B K L']


class PairBatch(NamedTuple):
  """A batch of B preference pairs; NumPy or JAX arrays.

  Attributes:
    index: position of the pair in its split, -1 for a padding row.
    images: RGB, as the model sees them: by CLIP the square from the centre.
    text: tokens of the prompt, as the model takes them.
    preference: the probability that the first image is preferred: 1, 0, or .5 for a
      tie.
    weight: of the pair in the loss, 1 / number of pairs of its prompt; 0 for padding,
      and for a pair that is dropped.
    problem: what is wrong with the pair, a `preferences.pair_tally.Problem`.
  """

  index: Int[np.ndarray, 'B']
  images: UInt8[np.ndarray, 'B 2 S S 3']
  text: Int[np.ndarray, 'B ...']
  preference: Float[np.ndarray, 'B']
  weight: Float[np.ndarray, 'B']
  problem: Int[np.ndarray, 'B']


class MixedBatch(NamedTuple):
  """Labelled images, and pairs without such labels."""

  labelled: Batch
  pairs: PairBatch
