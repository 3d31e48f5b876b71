"""Converts prompts to token ids and back, keeping words and pieces aligned.

The keyword target is the prompt with `_0` after each misaligned word (paper,
section 4.1: `a yellow_0 cat`). Searching for `_0` in decoded text would fail for
one real prompt in fifty: decoding may not restore the prompt, some words have no
piece, and prompts may contain `_0` themselves. Instead, the ids of the mark are
inserted between the prompt's pieces, and searched for among the generated ids.
"""

import bisect
import collections
import difflib
import itertools
import os
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import sentencepiece
from jaxtyping import Bool, Float, Int, Int32

from rahf.data import label_words, schema
from rahf.errors import InputError
from rahf.fileio import lfs_pointer, paths

PAD = 0
EOS = 1
MARK = '_0'

Ids = Sequence[int] | Int[np.ndarray, 'length']
Variant = Literal['augmented_prompt', 'multi_head']

# The prefix of each text of the augmented-prompt variant: one per map, one per score,
# and none for the keywords.
TASK_PREFIXES = (
  *(f'{name} heatmap: ' for name in schema.MAPS),
  *(f'{name} score: ' for name in schema.SCORES),
  '',
)


class PromptPieces(NamedTuple):
  """A prompt's pieces and where its words end.

  Attributes:
    ids: piece ids without EOS. As from SentencePiece, except that a piece that extends
      past the end of a word is split there, and that a word without any piece (U+200B
      at the end of a prompt) gets an empty one.
    word_ends: for each word, the number of pieces up to and including its last.
      Strictly increasing, from 1.
  """

  ids: tuple[int, ...]
  word_ends: tuple[int, ...]


class Keywords(NamedTuple):
  """Word labels read from a generated sequence.

  Attributes:
    labels: per word, 1 aligned, 0 misaligned.
    unplaced: number of marks that do not follow a word of the prompt.
  """

  labels: tuple[int, ...]
  unplaced: int


class Tokenizer:
  """A SentencePiece model with T5's conventions: 0 padding, 1 EOS, 2 unknown.

  Attributes:
    mark_ids: the pieces of `_0` as they follow a letter (834, 632 in T5's model).
    size: the number of pieces in the model.
    end_id: the token at the end of a text.
  """

  end_id = EOS

  def __init__(self, path: os.PathLike | str):
    """Reads the model.

    Raises:
      InputError: it is not a SentencePiece model, its special ids differ from T5's, or
        it has no pieces for the mark.
    """
    self._path = path
    try:
      model = paths.find(path, 'config.tokenizer').read_bytes()
      lfs_pointer.check(path, model)
      self._model = sentencepiece.SentencePieceProcessor(model_proto=model)
    except (*paths.read_errors(), RuntimeError) as error:
      raise InputError(
        f'{path} cannot be read as a SentencePiece model ({error}); set '
        "config.tokenizer to a T5 `spiece.model` or a data set's `tokenizer.model`"
      ) from None
    special = self._model.pad_id(), self._model.eos_id(), self._model.unk_id()
    if special != (PAD, EOS, 2):
      raise InputError(
        f'{path} has the ids {special} for padding, EOS and unknown, but T5 has '
        '(0, 1, 2); use a T5 model, or train one with pad_id=0, eos_id=1, unk_id=2, '
        'bos_id=-1'
      )
    self.size = self._model.get_piece_size()
    bare = self.ids('a')
    self.mark_ids = tuple(self.ids('a' + MARK)[len(bare) :])
    if not self.mark_ids or self._model.unk_id() in self.mark_ids:
      raise InputError(
        f'{path} has no pieces for the mark {MARK!r}; train the model with '
        f'user_defined_symbols=[{MARK!r}] or on text that contains it'
      )

  def check_vocabulary(self, vocab_size: int) -> None:
    """Raises InputError if an embedding table is too small for the pieces."""
    if vocab_size < self.size:
      raise InputError(
        f'the tokenizer {self._path} has {self.size} pieces, but the embedding table '
        f"only {vocab_size} rows; set config.tokenizer to the model's own tokenizer "
        f'or config.model.t5.vocab_size to at least {self.size} (T5: 32128)'
      )

  def to_bytes(self) -> bytes:
    """Returns the serialised model."""
    return self._model.serialized_model_proto()

  def ids(self, text: str) -> list[int]:
    """Returns the ids of a text as SentencePiece encodes it, without EOS."""
    return self._model.encode(text)

  def decode(self, ids: Ids) -> str:
    """Returns the human-readable text of generated ids up to EOS."""
    return self._model.decode(_until_end(ids))

  def encode(
    self, prompt: str, spans: Sequence[tuple[int, int]] | None = None
  ) -> PromptPieces:
    """Returns the prompt's pieces; every word ends at the end of a piece.

    Args:
      spans: character ranges of the words; None for `label_words.label_spans`.
    """
    spans = label_words.label_spans(prompt) if spans is None else spans
    # offsets[k] is the position in the prompt of character k of the normalised text.
    _, offsets = self._model.normalize(prompt, with_offsets=True)
    ends = [bisect.bisect_left(offsets, end, hi=len(offsets) - 1) for _, end in spans]
    ids, starts = self._split_at(self._model.encode(prompt, out_type=str), ends)
    result: list[int] = []
    word_ends: list[int] = []
    for begin, end in itertools.pairwise([0, *ends]):
      own = ids[bisect.bisect_left(starts, begin) : bisect.bisect_left(starts, end)]
      if not self._unmarked(own).tokens:
        # If a word had no pieces, or only marks, a mark after it could not be told
        # from one after the previous word or from the word itself.
        result.append(self._model.piece_to_id('▁'))
      result += own
      word_ends.append(len(result))
    tail = bisect.bisect_left(starts, ends[-1]) if ends else 0
    return PromptPieces((*result, *ids[tail:]), tuple(word_ends))

  def mark(self, pieces: PromptPieces, labels: Sequence[int]) -> list[int]:
    """Returns the prompt's ids with the mark after each word labelled 0, without EOS.

    Raises:
      InputError: the numbers of labels and words differ.
    """
    if len(labels) != len(pieces.word_ends):
      raise InputError(
        f'{len(labels)} keyword labels for the {len(pieces.word_ends)} words of a '
        'prompt; words are split at ,.?!":; and space (rahf.data.label_words)'
      )
    target: list[int] = []
    begin = 0
    for end, label in zip(pieces.word_ends, labels, strict=True):
      target += pieces.ids[begin:end]
      target += () if label else self.mark_ids
      begin = end
    return [*target, *pieces.ids[begin:]]

  def read_marks(self, pieces: PromptPieces, generated: Ids) -> Keywords:
    """Converts a decoder's output to word labels; the inverse of `mark`.

    If the output is not the prompt with marks, its pieces are aligned to the prompt's,
    and a mark counts for the word whose last piece it follows.

    Args:
      generated: ids, read up to the first EOS or padding.
    """
    expected = self._unmarked(pieces.ids)
    found = self._unmarked(_until_end(generated))
    aligned = {0: 0}  # Position among the found tokens -> among the expected.
    if found.tokens == expected.tokens:
      aligned = {end: end for end in range(len(found.tokens) + 1)}
    else:
      matcher = difflib.SequenceMatcher(
        None, expected.tokens, found.tokens, autojunk=False
      )
      for ours, theirs, size in matcher.get_matching_blocks():
        aligned |= {theirs + k: ours + k for k in range(1, size + 1)}
    word_at = {
      len(self._unmarked(pieces.ids[:end]).tokens): word
      for word, end in enumerate(pieces.word_ends)
    }
    labels = [1] * len(pieces.word_ends)
    unplaced = 0
    for position, count in found.marks.items():
      position = aligned.get(position)
      # Marks in the prompt itself are part of its text.
      extra = count - expected.marks[position]
      if extra > 0 and position in word_at:
        labels[word_at[position]] = 0
      elif extra > 0:
        unplaced += extra
    return Keywords(tuple(labels), unplaced)

  def _split_at(
    self, pieces: list[str], cuts: list[int]
  ) -> tuple[list[int], list[int]]:
    """Cuts pieces at the given characters; returns ids and where each piece begins."""
    starts = [0, *itertools.accumulate(len(piece) for piece in pieces)]
    inside = sorted(set(cuts) - set(starts))
    if not inside:
      return self._model.piece_to_id(pieces), starts[:-1]
    parts: list[str] = []
    for piece, start in zip(pieces, starts, strict=False):
      end = start + len(piece)
      bounds = [start, *(cut for cut in inside if start < cut < end), end]
      for begin, stop in itertools.pairwise(bounds):
        part = piece[begin - start : stop - start]
        known = len(bounds) == 2 or self._is_known(part)
        parts += [part] if known else part
    starts = [0, *itertools.accumulate(len(part) for part in parts)]
    return self._model.piece_to_id(parts), starts[:-1]

  def _is_known(self, piece: str) -> bool:
    return self._model.piece_to_id(piece) != self._model.unk_id()

  def _unmarked(self, ids: Sequence[int]) -> '_Unmarked':
    """Removes the marks from a sequence and records their positions."""
    tokens: list[int] = []
    marks: collections.Counter[int] = collections.Counter()
    position, width = 0, len(self.mark_ids)
    while position < len(ids):
      if tuple(ids[position : position + width]) == self.mark_ids:
        marks[len(tokens)] += 1
        position += width
      else:
        tokens.append(ids[position])
        position += 1
    return _Unmarked(tokens, marks)


class _Unmarked(NamedTuple):
  tokens: list[int]
  marks: collections.Counter  # Number of preceding tokens -> number of marks.


class Texts(NamedTuple):
  """The K texts of one prompt.

  Attributes:
    ids: each text ends with EOS; 0 is padding.
    truncated: whether any text was cut.
  """

  ids: Int32[np.ndarray, 'K L']
  truncated: bool


def tasks(variant: Variant) -> tuple[str, ...]:
  """Returns the prefixes of a variant's K texts."""
  return TASK_PREFIXES if variant == 'augmented_prompt' else ('',)


def prompt_texts(
  tokenizer: Tokenizer,
  pieces: PromptPieces,
  variant: Variant,
  length: int,
  prefixes: Sequence[str] | None = None,
) -> Texts:
  """Returns the ids of a prompt after each of the task strings.

  Args:
    prefixes: the task strings; None for `tasks(variant)`.
  """
  prefixes = tasks(variant) if prefixes is None else prefixes
  rows = [[*tokenizer.ids(task), *pieces.ids] for task in prefixes]
  ids = np.stack([pad(row, length) for row in rows])
  return Texts(ids, any(len(row) >= length for row in rows))


def word_end_mask(pieces: PromptPieces, length: int) -> Bool[np.ndarray, 'length']:
  """Returns True at the token right after each word, where a mark would go.

  Words cut off at `length` have none.
  """
  mask = np.zeros(length, bool)
  mask[[end for end in pieces.word_ends if end < length]] = True
  return mask


def at_word_ends(
  values: Float[np.ndarray, 'length'], pieces: PromptPieces
) -> Float[np.ndarray, 'words']:
  """Returns the value after each word; 0 for words that were cut off."""
  ends = np.array(pieces.word_ends, int)
  inside = ends < len(values)
  return np.where(inside, values[np.where(inside, ends, 0)], 0.0)


def pad(ids: Ids, length: int) -> Int32[np.ndarray, 'length']:
  """Appends EOS and pads to `length`; cuts longer ids, so that EOS is always last."""
  row = np.full(length, PAD, np.int32)
  kept = ids[: length - 1]
  row[: len(kept)] = kept
  row[len(kept)] = EOS
  return row


def _until_end(ids: Ids) -> list[int]:
  """Returns the ids before the first EOS or padding."""
  return list(itertools.takewhile(lambda token: token not in (PAD, EOS), map(int, ids)))
