"""Batches of preference pairs, read straight from Pick-a-Pic's parquet files."""

import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from rahf.data.clip_tokenizer import ClipTokenizer
from rahf.data.images import clip_image, codec
from rahf.data.pipeline.decoding import PipelineOptions, encode_prompt
from rahf.data.preferences.pair_order import Lane, Place, make_lanes
from rahf.data.preferences.pair_tally import PairTally, Problem, describe
from rahf.data.preferences.pairs import Pair, PairSplit
from rahf.data.schema import PairBatch
from rahf.data.tokenizer import Tokenizer
from rahf.errors import InputError


class DecodedPair(NamedTuple):
  """A row of `PairBatch`, without its index."""

  images: UInt8[np.ndarray, '2 S S 3']
  text: Int[np.ndarray, '...']
  preference: float
  weight: float
  problem: Problem


class DroppedPairError(InputError):
  """A pair cannot be used; the message gives the reason.

  Attributes:
    problem: its kind.
  """

  def __init__(self, problem: Problem, message: str):
    super().__init__(message)
    self.problem = problem


@dataclasses.dataclass(frozen=True)
class PairDecoder:
  """Turns pairs into rows of a batch.

  Attributes:
    resize: from the pixels of an image to those that the model sees.
    encode: from a prompt to its tokens, and whether it was truncated.
    image_size: of what the model sees, in pixels.
    labelled_only: whether to drop pairs with has_label False, on whose stored labels
      PickScore trains.
  """

  resize: Callable[[UInt8[np.ndarray, 'H W 3']], UInt8[np.ndarray, 'S S 3']]
  encode: Callable[[str], tuple[Int[np.ndarray, '...'], bool]]
  image_size: int
  labelled_only: bool = False

  @classmethod
  def for_clip(
    cls, tokenizer: ClipTokenizer, image_size: int, labelled_only: bool = False
  ) -> 'PairDecoder':
    """Returns a decoder for a CLIP: the square from the centre, and its tokens."""

    def resize(pixels: UInt8[np.ndarray, 'H W 3']) -> UInt8[np.ndarray, 'S S 3']:
      return clip_image.crop(pixels, image_size, tokenizer.cleaning)

    def encode(prompt: str) -> tuple[Int[np.ndarray, 'T'], bool]:
      tokens = tokenizer.encode([prompt])
      return tokens.ids[0], bool(tokens.truncated[0])

    return cls(resize, encode, image_size, labelled_only)

  @classmethod
  def for_rahf(cls, tokenizer: Tokenizer, options: PipelineOptions) -> 'PairDecoder':
    """Returns a decoder for a RAHF: the whole image, and all texts of the prompt."""

    def resize(pixels: UInt8[np.ndarray, 'H W 3']) -> UInt8[np.ndarray, 'S S 3']:
      return codec.resize(pixels, options.image_size)

    def encode(prompt: str) -> tuple[Int[np.ndarray, 'K L'], bool]:
      row = encode_prompt(prompt, tokenizer, options.variant, options.text_length)
      return row.text, row.truncated

    return cls(resize, encode, options.image_size)

  def __call__(self, pair: Pair) -> DecodedPair:
    """Decodes a pair.

    Raises:
      DroppedPairError: an image cannot be decoded, or the pair has no preference.
    """
    preference = preference_of(pair, self.labelled_only)
    images = np.stack([self._read(pair, side) for side in (0, 1)])
    text, truncated = self.encode(pair.prompt)
    weight = 1 / max(pair.num_example_per_prompt or 1, 1)
    problem = Problem.TRUNCATED if truncated else Problem.NONE
    return DecodedPair(images, text, preference, weight, problem)

  def blank(self, problem: Problem = Problem.NONE) -> DecodedPair:
    """Returns the row of a pair that is dropped, or of padding."""
    shape = 2, self.image_size, self.image_size, 3
    text, _ = self.encode('')
    return DecodedPair(np.zeros(shape, np.uint8), text, 0.5, 0.0, problem)

  def _read(self, pair: Pair, side: int) -> UInt8[np.ndarray, 'S S 3']:
    try:
      pixels = codec.decode_image(pair.images[side])
    except codec.ImageError as error:
      raise unreadable(pair, side, error) from None
    return self.resize(pixels)


def preference_of(pair: Pair, labelled_only: bool) -> float:
  """Returns the probability that the first image is preferred: 1, 0, or .5 for a tie.

  Raises:
    DroppedPairError: it is not labelled, or its labels are invalid or contradictory.
  """
  if not math.isnan(pair.preference):
    return pair.preference
  if not pair.has_label and labelled_only:
    raise DroppedPairError(Problem.UNLABELLED, 'it has no label')
  first, second = pair.labels
  if pair.has_label and first in (0, 0.5, 1) and first + second == 1:
    raise DroppedPairError(Problem.LABELS, 'best_image_uid contradicts its labels')
  if first not in (0, 0.5, 1) or first + second != 1:
    reason = f'its labels are {first:g} and {second:g}'
    raise DroppedPairError(Problem.LABELS, reason)
  return first


def unreadable(pair: Pair, side: int, error: InputError) -> DroppedPairError:
  """Returns the error for a pair of which an image cannot be decoded."""
  reason = f'image {side} ({pair.uids[side]}) cannot be read: {error}'
  return DroppedPairError(Problem.UNREADABLE, reason)


class PairReader:
  """Reads and decodes the pairs of one split.

  Attributes:
    tally: what is wrong with those that this process has read so far.
  """

  def __init__(self, split: PairSplit, decoder: PairDecoder):
    self.split, self.decoder = split, decoder
    self.tally = PairTally(split.where)

  def train_batches(
    self,
    *,
    batch_size: int,
    lanes: int,
    seed: int,
    start_step: int,
    rows: Sequence[int] | None = None,
  ) -> Iterator[PairBatch]:
    """Yields batches from `start_step` on, endlessly; when closed, prints the tally.

    Args:
      batch_size: pairs of all processes together.
      lanes: number of lanes, see `pair_order`; divides the batch size.
      seed: of the order.
      rows: which of a batch's rows this process needs; None for all.

    Raises:
      InputError: a file is damaged.
    """
    assert batch_size % lanes == 0
    wanted = range(batch_size) if rows is None else rows
    every = make_lanes(np.diff(self.split.starts), lanes, seed)
    share = batch_size // lanes
    own = sorted({row // share for row in wanted})
    readers = {lane: _LaneReader(self.split, every[lane]) for lane in own}
    try:
      with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for step in itertools.count(start_step):
          numbered = [
            readers[row // share].read(step * share + row % share) for row in wanted
          ]
          yield self._batch(numbered, pool)
    finally:
      for sentence in describe(self.tally.counts):
        print(f'{self.split.name}: {sentence}')

  def eval_batches(
    self, *, batch_size: int, rows: Sequence[int] | None = None
  ) -> Iterator[PairBatch]:
    """Yields batches that contain every pair once, in order; the last is padded.

    Args:
      batch_size: pairs of all processes together.
      rows: which of a batch's rows this process needs; None for all.

    Raises:
      InputError: a file is damaged.
    """
    wanted = range(batch_size) if rows is None else rows
    pairs = enumerate(self.split)
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
      for _ in range(0, len(self.split), batch_size):
        batch = list(itertools.islice(pairs, batch_size))
        yield self._batch(
          [batch[row] if row < len(batch) else None for row in wanted], pool
        )

  def _batch(
    self, numbered: Sequence[tuple[int, Pair] | None], pool: futures.Executor
  ) -> PairBatch:
    decoded = pool.map(self._decode, numbered)
    index = [-1 if one is None else one[0] for one in numbered]
    columns = map(np.stack, zip(*map(self._or_blank, decoded, index), strict=True))
    images, text, preference, weight, problem = columns
    return PairBatch(
      np.array(index, np.int32),
      images,
      text.astype(np.int32),
      preference.astype(np.float32),
      weight.astype(np.float32),
      problem.astype(np.int32),
    )

  def _decode(
    self, numbered: tuple[int, Pair] | None
  ) -> DecodedPair | DroppedPairError | None:
    if numbered is None:
      return None
    try:
      return self.decoder(numbered[1])
    except DroppedPairError as error:
      return error

  def _or_blank(
    self, decoded: DecodedPair | DroppedPairError | None, index: int
  ) -> DecodedPair:
    if decoded is None:
      return self.decoder.blank()
    if isinstance(decoded, DroppedPairError):
      self.tally.add(index, decoded.problem, str(decoded))
      return self.decoder.blank(decoded.problem)
    self.tally.add(index, decoded.problem)
    return decoded


class _LaneReader:
  """Reads the pairs of a lane; keeps the row group that it is in."""

  def __init__(self, split: PairSplit, lane: Lane):
    self._split, self._lane = split, lane
    self._group, self._pairs = -1, []

  def read(self, position: int) -> tuple[int, Pair]:
    """Returns the pair at a position of the lane, and its position in the split."""
    place: Place = self._lane.place(position)
    start, stop = self._split.starts[place.group : place.group + 2].tolist()
    if place.group != self._group:
      self._pairs = []  # Before the next are read: one row group in memory.
      self._pairs = list(self._split.read(start, stop))
      self._group = place.group
    return start + place.row, self._pairs[place.row]
