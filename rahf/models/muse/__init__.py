"""Muse, an image generator (Chang et al., 2023), as aMUSEd implements it."""

from rahf.models.muse.config import SIZES, MuseConfig, check_config
from rahf.models.muse.generator import (
  Generated,
  Prompt,
  abstract_params,
  generate,
  image_to_image,
  init_params,
  inpaint,
  mask_tokens,
  micro_conditions,
)
from rahf.models.muse.sampling import SamplingConfig

__all__ = [
  'SIZES',
  'Generated',
  'MuseConfig',
  'Prompt',
  'SamplingConfig',
  'abstract_params',
  'check_config',
  'generate',
  'image_to_image',
  'init_params',
  'inpaint',
  'mask_tokens',
  'micro_conditions',
]
