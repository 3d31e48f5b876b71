"""Prompts to token ids and back, keeping words and pieces aligned.

The keyword target is the prompt with `_0` after each misaligned word (paper,
section 4.1: `a yellow_0 cat`). Searching for `_0` in decoded text would fail for
one real prompt in fifty: decoding does not give the prompt back, some words have
no piece, and prompts may hold `_0` themselves. So the ids of the mark are put
between the prompt's own pieces, and read from there.
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

# What stands in front of the prompt in each of the texts of the augmented-prompt
# variant: one per map, one per score, and the plain prompt for the keywords.
TASKS = (
  *(f'{name} heatmap: ' for name in schema.MAPS),
  *(f'{name} score: ' for name in schema.SCORES),
  '',
)


class PromptPieces(NamedTuple):
  """A prompt's pieces and the places where its words end.

  Attributes:
    ids: piece ids, no EOS. As SentencePiece gives them, save that a piece that
      reaches over the end of a word is split there, and that a word without a
      piece of its own (U+200B at the end of a prompt) gets an empty one.
    word_ends: for each word of the prompt, how many pieces stand up to and including
      its last. Strictly increasing, from 1.
  """

  ids: tuple[int, ...]
  word_ends: tuple[int, ...]


class Keywords(NamedTuple):
  """What a generated sequence says about the words of its prompt.

  Attributes:
    labels: per word, 1 aligned, 0 misaligned.
    unplaced: how many marks followed no word of the prompt.
  """

  labels: tuple[int, ...]
  unplaced: int


class Tokenizer:
  """A SentencePiece model with T5's conventions: 0 padding, 1 EOS, 2 unknown.

  Attributes:
    mark_ids: the pieces of `_0` as they follow a letter (834, 632 in T5's model).
    size: the number of pieces in the model.
  """

  def __init__(self, path: os.PathLike | str):
    """Reads the model.

    Raises:
      InputError: it is not a SentencePiece model, has other special ids than T5's, or
        has no pieces to spell the mark with.
    """
    self._path = path
    try:
      model = paths.find(path, 'config.tokenizer').read_bytes()
      lfs_pointer.check(path, model)
      self._model = sentencepiece.SentencePieceProcessor(model_proto=model)
    except (OSError, RuntimeError) as error:
      raise InputError(
        f'{path} cannot be read as a SentencePiece model ({error}); set '
        "config.tokenizer to a T5 `spiece.model` or a data set's `tokenizer.model`"
      ) from None
    special = self._model.pad_id(), self._model.eos_id(), self._model.unk_id()
    if special != (PAD, EOS, 2):
      raise InputError(
        f"{path} numbers padding, EOS and unknown {special}, but T5's models number "
        'them (0, 1, 2); use such a model, or train one with pad_id=0, eos_id=1, '
        'unk_id=2, bos_id=-1'
      )
    self.size = self._model.get_piece_size()
    bare = self.ids('a')
    self.mark_ids = tuple(self.ids('a' + MARK)[len(bare) :])
    if not self.mark_ids or self._model.unk_id() in self.mark_ids:
      raise InputError(
        f'{path} has no pieces for the mark {MARK!r}; train the model with '
        f'user_defined_symbols=[{MARK!r}] or with text that holds it'
      )

  def check_vocabulary(self, vocab_size: int) -> None:
    """Raises InputError if an embedding table is too small for the pieces."""
    if vocab_size < self.size:
      raise InputError(
        f'the tokenizer {self._path} has {self.size} pieces, the embedding table '
        f"only {vocab_size} rows; set config.tokenizer to the model's own tokenizer "
        f'or config.model.t5.vocab_size to at least {self.size} (T5: 32128)'
      )

  def to_bytes(self) -> bytes:
    """Returns the model as a file holds it."""
    return self._model.serialized_model_proto()

  def ids(self, text: str) -> list[int]:
    """Returns the ids of a text as SentencePiece encodes it, no EOS."""
    return self._model.encode(text)

  def decode(self, ids: Ids) -> str:
    """Returns the text of generated ids up to EOS, for people to read."""
    return self._model.decode(_until_end(ids))

  def encode(
    self, prompt: str, spans: Sequence[tuple[int, int]] | None = None
  ) -> PromptPieces:
    """Returns the prompt's pieces, with every word ending at the end of a piece.

    Args:
      spans: of the words; None for those that have labels, `words.label_spans`.
    """
    spans = label_words.label_spans(prompt) if spans is None else spans
    # offsets[k] is where in the prompt character k of the normalised text begins.
    _, offsets = self._model.normalize(prompt, with_offsets=True)
    ends = [bisect.bisect_left(offsets, end, hi=len(offsets) - 1) for _, end in spans]
    ids, starts = self._split_at(self._model.encode(prompt, out_type=str), ends)
    result: list[int] = []
    word_ends: list[int] = []
    for begin, end in itertools.pairwise([0, *ends]):
      own = ids[bisect.bisect_left(starts, begin) : bisect.bisect_left(starts, end)]
      if not self._unmarked(own).tokens:
        # Without a piece of its own that is not a mark, a mark after this word
        # could not be told from one after the word before, or from the word.
        result.append(self._model.piece_to_id('▁'))
      result += own
      word_ends.append(len(result))
    tail = bisect.bisect_left(starts, ends[-1]) if ends else 0
    return PromptPieces((*result, *ids[tail:]), tuple(word_ends))

  def mark(self, pieces: PromptPieces, labels: Sequence[int]) -> list[int]:
    """Returns the prompt's ids with the mark after each word labelled 0, no EOS.

    Raises:
      InputError: there are not as many labels as words.
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
    """Reads a decoder's output back to labels; the inverse of `mark`.

    Where the output is not the prompt with marks, its pieces are aligned to the
    prompt's, and a mark counts for the word whose last piece it follows.

    Args:
      generated: ids, read up to the first EOS or padding.
    """
    expected = self._unmarked(pieces.ids)
    found = self._unmarked(_until_end(generated))
    place = {0: 0}  # Position among the found tokens to that among the expected.
    if found.tokens == expected.tokens:
      place = {end: end for end in range(len(found.tokens) + 1)}
    else:
      matcher = difflib.SequenceMatcher(
        None, expected.tokens, found.tokens, autojunk=False
      )
      for ours, theirs, size in matcher.get_matching_blocks():
        place |= {theirs + k: ours + k for k in range(1, size + 1)}
    word_at = {
      len(self._unmarked(pieces.ids[:end]).tokens): word
      for word, end in enumerate(pieces.word_ends)
    }
    labels = [1] * len(pieces.word_ends)
    unplaced = 0
    for position, count in found.marks.items():
      position = place.get(position)
      # Marks that the prompt itself holds are part of its text.
      extra = count - expected.marks[position]
      if extra > 0 and position in word_at:
        labels[word_at[position]] = 0
      elif extra > 0:
        unplaced += extra
    return Keywords(tuple(labels), unplaced)

  def _split_at(
    self, pieces: list[str], cuts: list[int]
  ) -> tuple[list[int], list[int]]:
    """Returns ids of the pieces cut at the given characters, and where each begins."""
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
    """Takes the marks out of a sequence, remembering where they stood."""
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
  marks: collections.Counter  # Number of tokens in front to number of marks.


class Texts(NamedTuple):
  """The K texts that one prompt is read with.

  Attributes:
    ids: each text ends with EOS; 0 is padding.
    truncated: whether any text was cut.
  """

  ids: Int32[np.ndarray, 'K L']
  truncated: bool


def tasks(variant: Variant) -> tuple[str, ...]:
  """Returns what stands in front of the prompt in each of a variant's K texts."""
  return TASKS if variant == 'augmented_prompt' else ('',)


def prompt_texts(
  tokenizer: Tokenizer,
  pieces: PromptPieces,
  variant: Variant,
  length: int,
  prefixes: Sequence[str] | None = None,
) -> Texts:
  """Returns the ids of a prompt after each of the task strings.

  Args:
    prefixes: the task strings, None for the variant's own.
  """
  prefixes = tasks(variant) if prefixes is None else prefixes
  rows = [[*tokenizer.ids(task), *pieces.ids] for task in prefixes]
  ids = np.stack([pad(row, length) for row in rows])
  return Texts(ids, any(len(row) >= length for row in rows))


def word_end_mask(pieces: PromptPieces, length: int) -> Bool[np.ndarray, 'length']:
  """Marks the tokens in front of which a word ends, the places of a mark.

  A word that ends after the cut at `length` has none.
  """
  mask = np.zeros(length, bool)
  mask[[end for end in pieces.word_ends if end < length]] = True
  return mask


def at_word_ends(
  values: Float[np.ndarray, 'length'], pieces: PromptPieces
) -> Float[np.ndarray, 'words']:
  """Picks a value per word; 0 for a word that ends after the cut."""
  ends = np.array(pieces.word_ends, int)
  inside = ends < len(values)
  return np.where(inside, values[np.where(inside, ends, 0)], 0.0)


def pad(ids: Ids, length: int) -> Int32[np.ndarray, 'length']:
  """Ends ids with EOS and fills up with padding; cuts so that EOS stays last."""
  row = np.full(length, PAD, np.int32)
  kept = ids[: length - 1]
  row[: len(kept)] = kept
  row[len(kept)] = EOS
  return row


def _until_end(ids: Ids) -> list[int]:
  """Returns the ids in front of the first EOS or padding."""
  return list(itertools.takewhile(lambda token: token not in (PAD, EOS), map(int, ids)))
