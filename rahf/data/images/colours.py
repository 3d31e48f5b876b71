"""Converts images of any mode to sRGB: depth, colour profile, transparency."""

import functools
import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms

# A colour profile that changes no colour by more than this (of 255) is taken as sRGB:
# different sRGB profiles differ by as much.
SRGB_TOLERANCE = 1
SPACES = {'RGB': 'RGB', 'L': 'GRAY', 'CMYK': 'CMYK'}


def to_srgb(image: Image.Image) -> Image.Image:
  """Returns an image of mode RGB, with transparency composited over white.

  16-bit levels are reduced to their upper 8 bits, as Pillow does for colours. Colours
  are converted from the profile in `info`, unless it is damaged or belongs to another
  colour space.

  Raises:
    Exception: whatever the decoder raises for damaged files.
  """
  colours, alpha = _split(image)
  colours = _convert(colours, image.info.get('icc_profile'))
  if alpha is None:
    return colours
  colours.putalpha(alpha)
  white = Image.new('RGBA', colours.size, 'white')
  return Image.alpha_composite(white, colours).convert('RGB')


def has_16_bit_key(image: Image.Image) -> bool:
  """Returns whether an undecoded image is 16-bit RGB PNG with a transparent colour."""
  return 'transparency' in image.info and [t.args for t in image.tile] == ['RGB;16B']


def decode_16_bit_key(high: Image.Image, low: Image.Image) -> Image.Image:
  """Decodes a 16-bit RGB PNG with a transparent colour to RGBA.

  Colours that differ from it only in their lower 8 bits stay opaque.

  Args:
    high, low: the same file, opened twice and not yet decoded.
  """
  # Reading samples as little-endian gives their lower bytes.
  low.tile = [low.tile[0]._replace(args='RGB;16L')]
  levels = np.asarray(high).astype(np.uint16) << 8 | np.asarray(low)
  alpha = (levels != np.array(high.info['transparency'])).any(-1)
  rgba = Image.fromarray(np.dstack([np.asarray(high), 255 * alpha.astype(np.uint8)]))
  profile = high.info.get('icc_profile')
  rgba.info |= {'exif': high.info.get('exif'), 'icc_profile': profile}
  return rgba


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
  """Returns the colours (mode RGB, L or CMYK) and the alpha, None if opaque."""
  image.load()
  key = image.info.get('transparency')
  if image.mode.startswith('I'):
    levels = np.asarray(image)
    grey = Image.fromarray((levels >> 8).clip(0, 255).astype(np.uint8))
    if key is None:
      return grey, None
    return grey, Image.fromarray(np.where(levels == key, 0, 255).astype(np.uint8))
  if not image.has_transparency_data:
    mode = 'L' if image.mode == '1' else image.mode
    return _as(image, mode if mode in SPACES else 'RGB'), None
  if image.mode == 'RGB' and isinstance(key, tuple) and max(key) > 255:
    # The file has 16 bits, of which the lower 8 are lost.
    image = image.copy()
    image.info['transparency'] = tuple(level >> 8 for level in key)
  grey = image.mode in ('1', 'L', 'LA', 'La')
  image = image.convert('LA' if grey else 'RGBA')
  *bands, alpha = image.split()
  return bands[0] if grey else Image.merge('RGB', bands), alpha


def _convert(colours: Image.Image, profile: Any) -> Image.Image:
  transform = _transform(profile, colours.mode) if profile else None
  return transform.apply(colours) if transform else _as(colours, 'RGB')


def _as(image: Image.Image, mode: str) -> Image.Image:
  return image if image.mode == mode else image.convert(mode)


@functools.lru_cache(8)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
  """Returns a transform to sRGB, None if no conversion is needed or possible."""
  try:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if source.profile.xcolor_space.strip() != SPACES[mode]:
      return None
    srgb = ImageCms.createProfile('sRGB')
    # Without a cache, several threads may use the transform at once.
    transform = ImageCms.buildTransform(
      source, srgb, mode, 'RGB', flags=ImageCms.Flags.NOCACHE
    )
  except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
    return None
  return None if _changes_nothing(transform, mode) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
  if mode == 'CMYK':
    return False
  levels = np.arange(0, 256, 17 if mode == 'RGB' else 1, dtype=np.uint8)
  if mode == 'RGB':
    levels = np.stack(np.meshgrid(*[levels] * 3), -1).reshape(1, -1, 3)
  sample = Image.fromarray(np.atleast_2d(levels))
  found = np.asarray(transform.apply(sample), int)
  return bool((abs(found - np.asarray(sample.convert('RGB'))) <= SRGB_TOLERANCE).all())
