"""Finds T5's token embedding, which has up to four names in Hugging Face's files."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from rahf.errors import InputError
from rahf.pretrained.hf_names import dense, rearranged
from rahf.pretrained.source import Weight

HEAD = 'lm_head.weight'
# If a file has several, the first is used, as in transformers.
NAMES = (
  'shared.weight',
  'encoder.embed_tokens.weight',
  'decoder.embed_tokens.weight',
  HEAD,
)
EMBEDDING = 't5/token_embedder/embedding'
LOGITS = 't5/decoder/logits_dense/kernel'


class Found(NamedTuple):
  """The arrays named in NAMES.

  Attributes:
    weights: by our path: the embedding, and the logits' kernel unless tied.
    ignored: copies of the embedding: name -> reason.
  """

  weights: dict[str, Weight]
  ignored: dict[str, str]


def find_embedding(
  where: str, arrays: Iterable[tuple[str, Weight]], *, tied: bool
) -> Found:
  """Finds the token embedding and the logits' kernel.

  Reading the embedding raises InputError if a copy of it differs, since our T5 has one
  embedding for the encoder and the decoder.

  Args:
    where: the file or directory, for errors.
    arrays: pairs of a name without prefixes and the array, in the file's layout.
    tied: whether the logits use the embedding. If not, but there is no separate kernel,
      they use the same values without scaling.
  """
  named = [(name, weight) for name, weight in arrays if name in NAMES]
  named.sort(key=lambda pair: NAMES.index(pair[0]))
  if not named:
    return Found({}, {})
  copies = [weight for name, weight in named if tied or name != HEAD]
  copies = copies or [weight for _, weight in named]
  read = functools.partial(_read_equal, where, copies)
  weights = {EMBEDDING: dataclasses.replace(copies[0], read=read)}
  if not tied:
    name, last = named[-1]
    logits = last if name == HEAD else copies[0]
    weights[LOGITS] = rearranged(where, logits, dense)
  return Found(
    weights, {w.name: 'the token embedding under another name' for w in copies[1:]}
  )


def _read_equal(where: str, copies: Sequence[Weight]) -> np.ndarray:
  """Returns the first of several copies; raises InputError if another differs."""
  first, *others = copies
  array = first.read()
  for other in others:
    if not np.array_equal(other.read(), array, equal_nan=True):
      raise InputError(
        f'{where}: {other.name} should be the same as {first.name}, but has different '
        'values; only a T5 with a single token embedding can be read'
      )
  return array
