"""Image bytes to arrays, safely: the header is read before any pixel is."""

import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from rahf.errors import InputError

FORMATS = ('PNG', 'JPEG', 'WEBP')
# Large enough for any generator's output; a 1.2 MB PNG can decode to 1.2 GB.
MAX_SIDE = 8192
MAX_PIXELS = 32 * 1024 * 1024

# What Pillow raises at spoilt bytes.
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, struct.error)

Box = Sequence[float] | Float[np.ndarray, '4']
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


class ImageError(InputError):
  """The bytes are not an image that may be decoded; the message says why."""


def open_image(data: bytes) -> Image.Image:
  """Returns the image with its header checked and its pixels not yet decoded.

  Raises:
    ImageError: not PNG, JPEG or WEBP, or larger than MAX_SIDE or MAX_PIXELS.
  """
  try:
    image = Image.open(io.BytesIO(data), formats=FORMATS)
  except Image.DecompressionBombError as error:
    raise ImageError(f'too large: {error} Scale the image down first') from None
  except UnidentifiedImageError:
    found = f'begins with {data[:12]!r}' if data else 'no bytes'
    raise ImageError(f'not a PNG, JPEG or WEBP image ({found})') from None
  except _DECODER_ERRORS as error:
    raise ImageError(f'its header is damaged: {error}') from None
  _check_size(image)
  return image


def _check_size(image: Image.Image) -> None:
  width, height = image.size
  if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
    raise ImageError(
      f'{width}x{height} pixels are more than the limit of {MAX_SIDE} a side and '
      f'{MAX_PIXELS} in all; scale the image down first'
    )


def decode_image(data: bytes) -> UInt8[np.ndarray, 'H W 3']:
  """Decodes to RGB: upright by EXIF, transparency over white.

  Raises:
    ImageError: the bytes are not a complete image within the size limits.
  """
  return to_rgb(open_image(data))


def to_rgb(image: Image.Image) -> UInt8[np.ndarray, 'H W 3']:
  """Decodes an opened image to RGB, as `decode_image`.

  Raises:
    ImageError: it cannot be decoded, or is larger than the limits.
  """
  _check_size(image)
  try:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith('I'):
      # 16 bits a pixel, which Pillow would cut off at 255.
      image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ('RGBA', 'LA', 'PA') or 'transparency' in image.info:
      image = image.convert('RGBA')
      white = Image.new('RGBA', image.size, 'white')
      image = Image.alpha_composite(white, image)
    return np.asarray(image.convert('RGB'))
  except _DECODER_ERRORS as error:
    raise ImageError(f'the image cannot be decoded: {error}') from None


def decode_map(data: bytes) -> Float[np.ndarray, 'H W']:
  """Decodes a stored heatmap to [0, 1].

  Raises:
    ImageError: the bytes are not a complete image within the size limits.
  """
  image = open_image(data)
  try:
    return np.asarray(image.convert('L'), np.float32) / 255
  except _DECODER_ERRORS as error:
    raise ImageError(f'the map cannot be decoded: {error}') from None


def resize(
  pixels: UInt8[np.ndarray, 'h w 3'] | Float[np.ndarray, 'h w'],
  size: int,
  box: Box = WHOLE,
) -> UInt8[np.ndarray, 'S S 3'] | Float[np.ndarray, 'S S']:
  """Scales a part of an image or map to S x S, bilinear with antialiasing.

  Args:
    box: (top, left, height, width) as fractions; need not end at pixels.
  """
  image = Image.fromarray(pixels)
  top, left, height, width = map(float, box)
  limits = (
    left * image.width,
    top * image.height,
    min(left + width, 1) * image.width,
    min(top + height, 1) * image.height,
  )
  return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, limits))


def to_signed(image: Any) -> Any:
  """Maps pixels in [0, 1] to [-1, 1], in which the model takes them.

  Args:
    image: an array of NumPy, JAX or TensorFlow.
  """
  return image * 2 - 1


def encode_map(values: Float[np.ndarray, 'H W']) -> bytes:
  """Encodes a heatmap in [0, 1] as an 8-bit grey PNG, rounded to 1/255."""
  levels = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
  return encode_png(levels)


def encode_png(pixels: UInt8[np.ndarray, 'H W *C']) -> bytes:
  """Encodes 8-bit pixels, grey or RGB, as PNG."""
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, 'PNG', compress_level=1)
  return buffer.getvalue()
