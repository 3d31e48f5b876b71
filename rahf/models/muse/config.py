"""Sizes of a Muse, and whether its parts fit together."""

import dataclasses
from typing import Annotated

from rahf.errors import InputError
from rahf.fileio.validators import one_of
from rahf.models.muse.autoencoder import AutoencoderConfig
from rahf.models.muse.text import TextConfig
from rahf.models.muse.transformer import TransformerConfig
from rahf.models.sizes import DTYPES, Side


@dataclasses.dataclass(frozen=True)
class MuseConfig:
  """Sizes of a Muse; the defaults are aMUSEd's for 256 px.

  Attributes:
    image_size: side in pixels of the images that it makes.
  """

  autoencoder: AutoencoderConfig = AutoencoderConfig()
  transformer: TransformerConfig = TransformerConfig()
  text: TextConfig = TextConfig()
  image_size: Side = 256
  dtype: Annotated[str, one_of(DTYPES)] = 'float32'

  @property
  def grid(self) -> int:
    """Side of the grid of tokens."""
    return self.image_size // self.autoencoder.side


SIZES = {
  'amused-256': MuseConfig(),
  'amused-512': MuseConfig(
    transformer=TransformerConfig(downsample=True), image_size=512
  ),
}


def check_config(config: MuseConfig) -> None:
  """Raises InputError if the parts do not fit together."""
  transformer, text = config.transformer, config.text
  sizes = {
    'transformer.codebook_size': config.autoencoder.codebook_size,
    'transformer.text_width': text.text.width,
    'transformer.pooled_width': text.projection,
  }
  for field, size in sizes.items():
    if (found := getattr(transformer, field.split('.')[1])) != size:
      raise InputError(f'muse.{field} is {found}, but must be {size}, as in the others')
  if transformer.vocab_size <= transformer.codebook_size:
    raise InputError(
      f'muse.transformer.vocab_size is {transformer.vocab_size}, but must exceed '
      f'codebook_size = {transformer.codebook_size}: the last token is the mask'
    )
  if transformer.positions and transformer.width % 4:
    raise InputError(
      f'muse.transformer.width is {transformer.width}, but must be a multiple of 4 for '
      'sines and cosines of two axes'
    )
  if config.autoencoder.local and len(config.autoencoder.widths) > 1:
    raise InputError(
      'muse.autoencoder.local sees each patch alone, so there must be one stage, but '
      f'muse.autoencoder.widths is {config.autoencoder.widths}'
    )
  step = config.autoencoder.side * (2 if transformer.downsample else 1)
  if config.image_size % step:
    raise InputError(
      f'muse.image_size is {config.image_size}, but must be a multiple of {step}'
    )
  for parts, whole in (
    (transformer.heads, transformer.width),
    (transformer.conv_heads, transformer.channels),
    (text.text.heads, text.text.width),
    *((config.autoencoder.groups, width) for width in config.autoencoder.widths),
  ):
    if whole % parts:
      raise InputError(
        f'muse has a width of {whole}, which its {parts} heads or groups do not divide'
      )
