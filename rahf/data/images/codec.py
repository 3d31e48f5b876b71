"""Decodes and encodes images; sizes are checked in the header before any decoding."""

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, UnidentifiedImageError

from rahf.data.images import colours, metadata
from rahf.errors import InputError
from rahf.fileio import lfs_pointer

FORMATS = ('PNG', 'JPEG', 'WEBP')
# Of the names of files in these formats.
ENDINGS = {'PNG': '.png', 'JPEG': '.jpg', 'WEBP': '.webp'}
# Large enough for any generator's output; a 1.2 MB PNG can decode to 1.2 GB.
MAX_SIDE = 8192
MAX_PIXELS = 32 * 1024 * 1024

# The first bytes of files in the supported formats, and in others.
SUPPORTED_SIGNATURES = re.compile(rb'\x89PNG|\xff\xd8\xff|RIFF.{4}WEBP', re.DOTALL)
OTHER_SIGNATURES = {
  'GIF': rb'GIF8',
  'BMP': rb'BM.{4}\0{4}',
  'TIFF': rb'II[*+]\0|MM\0[*+]',
  'AVIF': rb'.{4}ftypavi[fs]',
  'HEIC': rb'.{4}ftyp(hei|hev|mif1|msf1)',
  'JPEG XL': rb'\xff\x0a|\0\0\0\x0cJXL ',
  'JPEG 2000': rb'\xff\x4f\xff\x51|\0\0\0\x0cjP  ',
  'ICO': rb'\0\0\x01\0',
  'PSD': rb'8BPS',
  'SVG': rb'<svg|<\?xml.*<svg',
}

Box = Sequence[float] | Float[np.ndarray, '4']
WHOLE_IMAGE: Box = (0.0, 0.0, 1.0, 1.0)

# The largest difference between the channels of a grey map, in levels of 255: JPEG does
# not keep them quite equal.
GREY_TOLERANCE = 16

# EXIF orientation -> what makes the image upright.
TRANSPOSE_BY_ORIENTATION = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}


class ImageError(InputError):
  """The bytes cannot be decoded as an image; the message gives the reason."""


def open_image(data: bytes) -> Image.Image:
  """Checks an image's header and returns the image without decoding its pixels.

  The only metadata in `info` are the EXIF and the colour profile.

  Raises:
    ImageError: it is not PNG, JPEG or WEBP, is damaged, or exceeds MAX_SIDE or
      MAX_PIXELS.
  """
  try:
    file = metadata.split_metadata(data)
  except ValueError as error:
    raise ImageError(f'damaged: {error}') from None
  try:
    image = Image.open(io.BytesIO(file.data), formats=FORMATS)
  except Image.DecompressionBombError as error:
    raise ImageError(f'too large: {error} Scale the image down first') from None
  except UnidentifiedImageError:
    raise ImageError(_describe_other(data)) from None
  except Exception as error:  # Decoders raise many kinds.
    raise ImageError(f'its header is damaged: {error}') from None
  _check_size(image)
  if file.exif:
    image.info['exif'] = file.exif
  if file.profile:
    image.info['icc_profile'] = file.profile
  return image


def _describe_other(data: bytes) -> str:
  """Returns an error message for bytes that no decoder accepts."""
  if lfs_pointer.is_pointer(data):
    return 'a Git LFS pointer, not the data: run `git lfs pull` in its clone'
  if SUPPORTED_SIGNATURES.match(data):
    return f'its header is damaged: no image follows its first bytes, {data[:12]!r}'
  found = f'begins with {data[:12]!r}' if data else 'no bytes'
  kinds = (
    name
    for name, start in OTHER_SIGNATURES.items()
    if re.match(start, data[:1024], re.S)
  )
  kind = next(kinds, None)
  hint = f'; it is {kind}: convert it to PNG first' if kind else ''
  return f'not a PNG, JPEG or WEBP image ({found}){hint}'


def _check_size(image: Image.Image) -> None:
  width, height = image.size
  if not (width and height):
    raise ImageError(f'{width}x{height}: it has no pixels')
  if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
    raise ImageError(
      f'{width}x{height} pixels are more than the limit of {MAX_SIDE} per side and '
      f'{MAX_PIXELS} in total; scale the image down first'
    )


def upright_size(image: Image.Image) -> tuple[int, int]:
  """Returns the width and height of an opened image in its upright orientation."""
  width, height = image.size
  turned = metadata.orientation(image.info.get('exif')) > 4
  return (height, width) if turned else (width, height)


def _upright(image: Image.Image, exif: Any) -> Image.Image:
  turn = TRANSPOSE_BY_ORIENTATION.get(metadata.orientation(exif))
  return image if turn is None else image.transpose(turn)


def decode_image(data: bytes) -> UInt8[np.ndarray, 'H W 3']:
  """Decodes to upright sRGB, with transparency over white.

  Orientation follows EXIF; images without a colour profile are taken as sRGB.
  Animations give their first frame.

  Raises:
    ImageError: the bytes are not a complete image within the size limits.
  """
  image = open_image(data)
  if not colours.has_16_bit_key(image):
    return to_rgb(image)
  try:
    image = colours.decode_16_bit_key(image, open_image(data))
  except Exception as error:
    raise ImageError(f'the image cannot be decoded: {error}') from None
  return to_rgb(image)


def to_rgb(image: Image.Image) -> UInt8[np.ndarray, 'H W 3']:
  """Decodes an opened image to RGB, like `decode_image`.

  Raises:
    ImageError: it cannot be decoded, or exceeds the size limits.
  """
  _check_size(image)
  try:
    return np.asarray(_upright(colours.to_srgb(image), image.info.get('exif')))
  except Exception as error:  # Decoders raise many kinds.
    raise ImageError(f'the image cannot be decoded: {error}') from None


def decode_map(data: bytes) -> Float[np.ndarray, 'H W']:
  """Decodes a stored heatmap to [0, 1]; the highest level of 8 or 16 bits is 1.

  Levels are data: colour profile and transparency are ignored.

  Raises:
    ImageError: the bytes are not a complete image within the size limits, or it is one
      in colours.
  """
  image = open_image(data)
  image.info.pop('transparency', None)
  try:
    deep = image.mode.startswith('I')
    coloured = _is_coloured(image)
    grey = _upright(image if deep else image.convert('L'), image.info.get('exif'))
    levels = np.asarray(grey, np.float32) / (65535 if deep else 255)
  except Exception as error:  # Decoders raise many kinds.
    raise ImageError(f'the map cannot be decoded: {error}') from None
  if coloured:
    raise ImageError(
      'the map is painted in colours, which do not say its levels; save it in grey'
    )
  return levels


def _is_coloured(image: Image.Image) -> bool:
  """Returns whether an image is more than grey levels in several channels."""
  if image.mode.startswith(('1', 'L', 'I')):
    return False
  red, green, blue = np.asarray(image.convert('RGB'), np.int16).transpose(2, 0, 1)
  return max(abs(red - green).max(), abs(blue - green).max()) > GREY_TOLERANCE


def resize(
  pixels: UInt8[np.ndarray, 'h w 3'] | Float[np.ndarray, 'h w'],
  size: int,
  box: Box = WHOLE_IMAGE,
) -> UInt8[np.ndarray, 'S S 3'] | Float[np.ndarray, 'S S']:
  """Scales a part of an image or map to S x S, bilinear with antialiasing.

  Args:
    box: (top, left, height, width) as fractions; need not align with pixels.
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


def cut(pixels: UInt8[np.ndarray, 'H W 3'], box: Box) -> UInt8[np.ndarray, 'h w 3']:
  """Cuts a box out of an image, rounded to whole pixels, at least one."""
  corner, sides = np.reshape(np.asarray(box, np.float64), (2, 2))
  shape = pixels.shape[:2]
  first = np.minimum(np.round(corner * shape).astype(int), np.subtract(shape, 1))
  last = np.maximum(np.round((corner + sides) * shape).astype(int), first + 1)
  return pixels[first[0] : last[0], first[1] : last[1]]


def to_signed(image: Any) -> Any:
  """Maps pixels from [0, 1] to [-1, 1], the range of the model's input.

  Args:
    image: a NumPy, JAX or TensorFlow array.
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
