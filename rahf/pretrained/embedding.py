"""T5's token embedding, which Hugging Face's files hold under one to four names."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from rahf.errors import InputError
from rahf.pretrained.hf_names import arranged, dense
from rahf.pretrained.source import Weight

HEAD = 'lm_head.weight'
# Where several are in a file, the first is used; transformers does likewise.
NAMES = (
  'shared.weight',
  'encoder.embed_tokens.weight',
  'decoder.embed_tokens.weight',
  HEAD,
)
EMBEDDING = 't5/token_embedder/embedding'
LOGITS = 't5/decoder/logits_dense/kernel'


class Found(NamedTuple):
  """What the arrays named in NAMES are.

  Attributes:
    weights: by our path: the embedding, and the kernel of the logits unless tied.
    ignored: copies of the embedding; name to reason.
  """

  weights: dict[str, Weight]
  ignored: dict[str, str]


def find_embedding(
  where: str, arrays: Iterable[tuple[str, Weight]], *, tied: bool
) -> Found:
  """Finds the token embedding and the kernel of the logits.

  Reading the embedding raises InputError where a copy of it differs, since our T5 has
  one embedding for the encoder and the decoder.

  Args:
    where: the file or directory, for errors.
    arrays: pairs of a name without prefixes and the array, as the file has it.
    tied: whether the logits are those of the embedding. If not, but there is no kernel
      of their own, they are computed with the same values, unscaled.
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
    weights[LOGITS] = arranged(where, logits, dense)
  return Found(
    weights, {w.name: 'the token embedding under another name' for w in copies[1:]}
  )


def _read_equal(where: str, copies: Sequence[Weight]) -> np.ndarray:
  """Returns the first of several copies; raises InputError where another differs."""
  first, *others = copies
  array = first.read()
  for other in others:
    if not np.array_equal(other.read(), array, equal_nan=True):
      raise InputError(
        f'{where}: {other.name} should be the same as {first.name}, but has other '
        'values; only a T5 with one token embedding can be read'
      )
  return array
