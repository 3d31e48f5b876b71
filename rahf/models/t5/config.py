"""Sizes of a T5."""

import dataclasses
from typing import Annotated

from rahf.fileio.validators import one_of, sequence, whole
from rahf.models.layers import ACTIVATIONS
from rahf.models.sizes import Flag, Layers, Width


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Sizes of a T5; the defaults are v1.1 base.

  Attributes:
    head_dim: width of one head; heads x head_dim may differ from width.
    activations: of the MLP: ('gelu', 'linear') for v1.1, gated, ('relu',) for v1.0.
    tied_logits: whether the embedding also computes the logits, as in v1.0.
  """

  vocab_size: Annotated[int, whole(1, 2**22)] = 32128
  width: Width = 768
  heads: Width = 12
  head_dim: Width = 64
  mlp: Width = 2048
  encoder_layers: Layers = 12
  decoder_layers: Layers = 12
  activations: Annotated[
    tuple, sequence(one_of(tuple(ACTIVATIONS)), "('gelu', 'linear')", least=1)
  ] = ('gelu', 'linear')
  tied_logits: Flag = False
