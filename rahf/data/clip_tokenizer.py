"""CLIP's byte-pair tokenizer, from its merges or from a Hugging Face directory.

The two cleanings of text that are in use give other tokens where text is broken:
OpenAI's mends mojibake and HTML entities, Hugging Face's does not. Use the one that
the weights were trained with: OpenAI's for its own files and OpenCLIP's, Hugging
Face's for its directories, PickScore's among them.
"""

import gzip
import html
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Bool, Int

from rahf.errors import InputError
from rahf.fileio import lfs_pointer, strict_json

START, END = '<|startoftext|>', '<|endoftext|>'
LENGTH = 77
# The public file has more merges, for which the models have no tokens.
MERGES = 48_894
# In the work directory of a run, whose model needs it, perhaps without the data.
VOCABULARY_FOLDER = 'vocabulary'
CLEANINGS = ('openai', 'huggingface')
FILES = 'vocab.json and merges.txt, tokenizer.json, or bpe_simple_vocab_16e6.txt.gz'
# Contractions, words, single digits, and runs of all else.
PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"""


class Vocabulary(NamedTuple):
  """The number of each token, and the merges in their order."""

  ids: Mapping[str, int]
  merges: Sequence[tuple[str, str]]


class Tokens(NamedTuple):
  """Texts as CLIP reads them.

  Attributes:
    ids: start, text, end; then ends up to the length.
    truncated: whether a text lost tokens at its end.
  """

  ids: Int[np.ndarray, 'N T']
  truncated: Bool[np.ndarray, ' N']


class ClipTokenizer:
  """Turns texts into CLIP's tokens.

  Attributes:
    vocabulary: its tokens and merges.
    end_id: the token at the end of a text, which is also the padding.
  """

  def __init__(
    self,
    source: os.PathLike | str | Vocabulary,
    cleaning: str,
    length: int = LENGTH,
    prefix: str = '',
  ):
    """Makes the tokenizer, and reads its vocabulary.

    Args:
      source: a directory that holds a vocabulary, the file of merges, or a vocabulary.
      cleaning: one of CLEANINGS.
      length: of the longest text in tokens, start and end included.
      prefix: put before each text, such as 'A photo depicts '.

    Raises:
      InputError: there is no vocabulary, or it is damaged.
    """
    if cleaning not in CLEANINGS:
      raise InputError(f'cleaning is {cleaning!r}, but should be one of {CLEANINGS}')
    self.cleaning, self.length, self.prefix = cleaning, length, prefix
    if not isinstance(source, Vocabulary):
      source = read_vocabulary(epath.Path(source))
    self.vocabulary = source
    vocabulary, merges = source
    self._start, self.end_id = vocabulary[START], vocabulary[END]
    self._tokenizer = _build(vocabulary, merges, cleaning)

  @property
  def size(self) -> int:
    """The number of tokens."""
    return len(self.vocabulary.ids)

  def ids(self, text: str) -> list[int]:
    """Returns the tokens of a text, between start and end; of any length."""
    text = self._cleaned(text)
    return [self._start, *self._tokenizer.encode(text).ids, self.end_id]

  def _cleaned(self, text: str) -> str:
    text = self.prefix + text
    return clean(text) if self.cleaning == 'openai' else text

  def tokens_of(self, text: str, spans: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Returns which tokens each of some words has.

    Args:
      text: the text without cleaning.
      spans: of the words: first character, and the one after the last.

    Returns:
      For each word the positions of its tokens in `encode`'s result; those that were
      cut off are missing, as are those of a word that cleaning took apart.
    """
    cleaned, after = self._cleaned(text), len(self.prefix)
    if self.cleaning == 'openai':
      places = []
      for start, end in spans:
        places.append(_find_word(cleaned, text[start:end], after))
        after = max(after, places[-1][1])
    else:
      places = [(start + after, end + after) for start, end in spans]
    offsets = self._tokenizer.encode(cleaned).offsets[: self.length - 2]
    return [
      [i for i, (a, b) in enumerate(offsets, 1) if a < end and b > start]
      for start, end in places
    ]

  def encode(self, texts: Sequence[str]) -> Tokens:
    """Tokenizes texts and cuts or pads each to the same length."""
    ids = np.full((len(texts), self.length), self.end_id, np.int32)
    truncated = np.zeros(len(texts), bool)
    for row, text in enumerate(texts):
      found = self.ids(text)
      truncated[row] = len(found) > self.length
      found = found[: self.length - 1]
      ids[row, : len(found)] = found
    return Tokens(ids, truncated)


def _find_word(text: str, word: str, after: int) -> tuple[int, int]:
  """Returns where a word, as it is or cleaned, stands whole; (0, 0) if nowhere."""
  for form in (word, clean(word)):
    pattern = re.escape(form)
    if form[:1].isalnum():
      pattern = r'(?<![^\W_])' + pattern
    if form[-1:].isalnum():
      pattern += r'(?![^\W_])'
    if form and (found := re.compile(pattern).search(text, after)):
      return found.span()
  return 0, 0


def clean(text: str) -> str:
  """Mends mojibake and HTML entities as OpenAI's CLIP does, before lower case."""
  import ftfy

  text = html.unescape(html.unescape(ftfy.fix_text(text)))
  return re.sub(r'\s+', ' ', text.strip()).strip()


def _build(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], cleaning):
  from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

  tokenizer = Tokenizer(
    models.BPE(dict(vocabulary), list(merges), end_of_word_suffix='</w>', unk_token=END)
  )
  normal = [normalizers.Replace(Regex(r'\s+'), ' '), normalizers.Lowercase()]
  if cleaning == 'huggingface':
    normal.insert(0, normalizers.NFC())
  tokenizer.normalizer = normalizers.Sequence(normal)
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(Regex(PATTERN), behavior='removed', invert=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  # A prompt may spell them out; both public tokenizers then give the token itself.
  tokenizer.add_special_tokens([START, END])
  return tokenizer


def train_vocabulary(texts: Iterable[str], size: int) -> Vocabulary:
  """Learns merges from texts, for a small CLIP of one's own.

  Args:
    size: number of tokens: 512 for the bytes, the merges, and start and end.

  Raises:
    InputError: the size is too small, or the texts have too few words for it.
  """
  from tokenizers import trainers

  bytes_alone = _from_merges([])
  trainer = trainers.BpeTrainer(
    vocab_size=size - 2,
    show_progress=False,
    initial_alphabet=_byte_letters(),
    end_of_word_suffix='</w>',
  )
  tokenizer = _build(*bytes_alone, 'huggingface')
  tokenizer.train_from_iterator(texts, trainer)
  learned = json.loads(tokenizer.to_str())['model']['merges']
  merges = [tuple(merge) for merge in learned][: size - len(bytes_alone.ids)]
  found = _from_merges(merges)
  if len(found.ids) != size:
    raise InputError(
      f'vocab_size = {size} does not fit: these prompts give a vocabulary of '
      f'{len(bytes_alone.ids)} to {len(found.ids)} tokens; change it in the config'
    )
  return found


def write_vocabulary(folder: epath.Path, vocabulary: Vocabulary) -> None:
  """Writes vocab.json and merges.txt as Hugging Face's directories have them."""
  ids = json.dumps(vocabulary.ids, ensure_ascii=False)
  lines = ['#version: 0.2', *map(' '.join, vocabulary.merges), '']
  # As bytes, since the default encoding is the machine's.
  (folder / 'vocab.json').write_bytes(ids.encode())
  (folder / 'merges.txt').write_bytes('\n'.join(lines).encode())


def read_vocabulary(path: epath.Path) -> Vocabulary:
  """Reads a directory or file of any known kind.

  Raises:
    InputError: there is no vocabulary, or it is damaged.
  """
  found = _read(path)
  for special in (START, END):
    if special not in found.ids:
      raise InputError(f'{path} is not a vocabulary of CLIP: it lacks {special}')
  merged = {''.join(pair) for pair in found.merges}
  parts = {part for pair in found.merges for part in pair}
  letters = {letter + end for letter in _byte_letters() for end in ('', '</w>')}
  if unknown := sorted((merged | parts) - found.ids.keys()):
    raise InputError(
      f'{path} is damaged: its merges make {unknown[0]!r}, which is not a token; copy '
      'it again'
    )
  if lone := sorted(found.ids.keys() - merged - letters - {START, END}):
    raise InputError(
      f'{path} is damaged: no merge makes the token {lone[0]!r}; copy it again'
    )
  return found


def _read(path: epath.Path) -> Vocabulary:
  if not path.exists():
    raise InputError(f'{path} does not exist; it should be or hold {FILES}')
  if not path.is_dir():
    return _read_merges(path)
  if (path / 'tokenizer.json').exists():
    return _read_tokenizer_json(path / 'tokenizer.json')
  if (path / 'vocab.json').exists() and (path / 'merges.txt').exists():
    lines = _text(path / 'merges.txt').splitlines()
    merges = [line for line in lines if line and not line.startswith('#version')]
    ids = _numbered(path, _json(path / 'vocab.json'))
    return Vocabulary(ids, _pairs(path / 'merges.txt', merges))
  for found in sorted(path.glob('bpe_simple_vocab*.txt*')):
    return _read_merges(found)
  raise InputError(f'{path} contains no vocabulary of CLIP; it should contain {FILES}')


def _read_tokenizer_json(path: epath.Path) -> Vocabulary:
  model = _json(path).get('model')
  if not isinstance(model, dict) or model.get('end_of_word_suffix') != '</w>':
    raise InputError(f'{path} is not a CLIP tokenizer')
  ids = _numbered(path, model.get('vocab'))
  merges = model.get('merges')
  if not isinstance(merges, list):
    raise InputError(f'{path} has no list of merges')
  # Older files join the two parts by a space.
  lines = [' '.join(m) if isinstance(m, list) else str(m) for m in merges]
  return Vocabulary(ids, _pairs(path, lines))


def _read_merges(path: epath.Path) -> Vocabulary:
  """Reads OpenAI's file: a line of title, then a merge on each line."""
  lines = _text(path).split('\n')[1 : 1 + MERGES]
  if len(lines) < MERGES:
    raise InputError(
      f'{path} has {len(lines):,} merges, but CLIP has {MERGES:,}; copy it again'
    )
  return _from_merges(_pairs(path, lines))


def _from_merges(merges: Sequence[tuple[str, str]]) -> Vocabulary:
  """Numbers the tokens as OpenAI does: bytes, bytes that end a word, merges, ends."""
  letters = _byte_letters()
  tokens = [
    *letters,
    *(f'{letter}</w>' for letter in letters),
    *map(''.join, merges),
    *(START, END),
  ]
  return Vocabulary({token: number for number, token in enumerate(tokens)}, merges)


def _byte_letters() -> list[str]:
  """Returns the letter that stands for each byte, in the vocabulary's order.

  Bytes that can be seen stand for themselves and come first; the others are the
  characters from 256 on.
  """
  seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  return [chr(code) for code in (*seen, *range(256, 256 + 256 - len(seen)))]


def _pairs(path: epath.Path, lines: Sequence[str]) -> list[tuple[str, str]]:
  pairs = [tuple(line.split(' ')) for line in lines]
  for number, pair in enumerate(pairs, 1):
    if len(pair) != 2:
      raise InputError(f'{path}: merge {number} is {" ".join(pair)!r:.80}, not a pair')
  return pairs


def _numbered(path: epath.Path, found: object) -> Mapping[str, int]:
  numbers = [*found.values()] if isinstance(found, dict) else [None]
  whole = all(type(number) is int for number in numbers)
  if not whole or sorted(numbers) != [*range(len(numbers))]:
    raise InputError(f'{path} does not number its tokens from 0 on')
  return found


def _text(path: epath.Path) -> str:
  data = path.read_bytes()
  lfs_pointer.check(path, data)
  try:
    if data[:2] == b'\x1f\x8b':
      data = gzip.decompress(data)
    return data.decode('utf-8')
  except (OSError, EOFError, ValueError) as error:
    raise InputError(f'{path} is damaged: {error}; copy it again') from None


def _json(path: epath.Path) -> dict:
  return strict_json.read_own(path, 'copy it again')
