"""What every reader of other projects' weights returns: arrays under our names."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Weight:
  """One array of a file, in our layout and under our name, not yet read.

  Attributes:
    name: what the file calls it.
    shape: in our layout.
    dtype: as stored.
    read: returns the array, in our layout. Nothing is kept by the reader.
  """

  name: str
  shape: tuple[int, ...]
  dtype: np.dtype
  read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Source:
  """A checkpoint of another project, opened but not read.

  Attributes:
    kind: what it is, for people, such as 'T5X checkpoint'.
    path: where it lies.
    weights: by our parameter path, such as 'vit/embedding/kernel'.
    ignored: arrays of the file that the model has no use for; name to reason.
    settings: what `config.model` must say for the weights to mean what they meant;
      dotted field, such as 'vit.norm_epsilon', to value.
    licence: terms that a user must know before using the weights, or ''.
    tasks: what stood in front of the prompt in each text that the weights were trained
      with, where that differs from rahf's own.
    joined_words: whether prompts were read as their words, joined by single spaces.
    collections: what is not a parameter, such as statistics of batch norms, by the
      name of Flax's collection and our path in it.
  """

  kind: str
  path: str
  weights: Mapping[str, Weight]
  ignored: Mapping[str, str]
  settings: Mapping[str, Any]
  licence: str = ''
  tasks: tuple[str, ...] | None = None
  joined_words: bool = False
  collections: Mapping[str, Weight] = dataclasses.field(default_factory=dict)
