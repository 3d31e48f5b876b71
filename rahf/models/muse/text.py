"""The text encoder of a Muse: CLIP's text tower.

Axis letters: B batch, T text tokens, E width of CLIP's space, D width of the tower.
"""

import dataclasses
from typing import Annotated

import jax.numpy as jnp
from jaxtyping import Array, Int

from rahf.fileio.validators import whole
from rahf.models.clip import TowerConfig
from rahf.models.sizes import Width


@dataclasses.dataclass(frozen=True)
class TextConfig:
  """Sizes of the text encoder; the defaults are those of CLIP's L/14.

  Attributes:
    text: sizes of the tower.
    text_length: the longest text in tokens, its start and end included.
    vocab_size: the last token is the end of a text.
    projection: width of the space that CLIP's images and texts share.
    pad: token that fills texts up after their end; -1 for the end itself. The
      transformer reads all T tokens, so that this matters.
  """

  text: TowerConfig = TowerConfig()
  text_length: Width = 77
  vocab_size: Width = 49408
  projection: Width = 768
  pad: Annotated[int, whole(-1, 2**17)] = -1


def fill_up(config: TextConfig, text: Int[Array, 'B T']) -> Int[Array, 'B T']:
  """Returns texts with the model's own padding after the first end token."""
  if config.pad < 0:
    return text
  is_end = text == config.vocab_size - 1
  after = jnp.cumsum(is_end, 1) - is_end > 0
  return jnp.where(after, config.pad, text)


def emptied(text: Int[Array, 'B T'], end: int) -> Int[Array, 'B T']:
  """Returns the tokens of empty texts: the start, which stays, then only ends."""
  return jnp.where(jnp.arange(text.shape[1]) == 0, text, end)
