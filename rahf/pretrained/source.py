"""Pretrained weights as returned by all readers: lazy arrays under our names."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# Settings of a model that its weights do not determine.
FREE = ('dtype', 'dropout_rate', 'remat', 'loop')


@dataclasses.dataclass(frozen=True)
class Weight:
  """One array of a file, in our layout, read on demand.

  Attributes:
    name: its name in the file.
    shape: in our layout.
    dtype: as stored.
    read: reads the array in our layout, without caching.
  """

  name: str
  shape: tuple[int, ...]
  dtype: np.dtype
  read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Source:
  """An opened checkpoint, of another project or our own.

  Attributes:
    kind: human-readable, such as 'T5X checkpoint'.
    path: its path.
    weights: by our parameter path, such as 'vit/embedding/kernel'.
    ignored: arrays that the model does not use: name -> reason.
    settings: the settings of `config.model` that the weights require: dotted field,
      such as 'vit.norm_epsilon' -> value.
    licence: terms that users of the weights must know, or ''.
    tasks: the prefixes of the prompt in training; None if they are rahf's own.
    joined_words: whether prompts were reduced to words joined by single spaces.
    tokenizer: the SentencePiece model that the weights were trained with; b'' if the
      files do not have it.
    collections: variables other than parameters, by the name of Flax's collection and
      our path in it, such as 'batch_stats/resnet/bn1/mean'.
  """

  kind: str
  path: str
  weights: Mapping[str, Weight]
  ignored: Mapping[str, str]
  settings: Mapping[str, Any]
  licence: str = ''
  tasks: tuple[str, ...] | None = None
  joined_words: bool = False
  tokenizer: bytes = b''
  collections: Mapping[str, Weight] = dataclasses.field(default_factory=dict)

  @property
  def arrays(self) -> dict[str, Weight]:
    """All arrays that are used: `weights`, and those of `collections`."""
    return {**self.weights, **self.collections}
