"""Decodes images passed as files, bytes, PIL images or arrays to RGB."""

import os
import pathlib
import re
import sys
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float, UInt8
from PIL import Image

from rahf.data.images import codec, files
from rahf.data.images.codec import ImageError
from rahf.errors import InputError
from rahf.fileio import lfs_pointer

# How far floats may lie outside [0, 1], for example after interpolation.
TOLERANCE = 1e-3
KINDS = (
  'a path, bytes of a PNG, JPEG or WEBP file, a PIL image, or an array [height, width, '
  '3] of NumPy, JAX or PyTorch, uint8 or floats in [0, 1]'
)
# How files of the three formats start in base64.
BASE64 = re.compile('data:|iVBORw0KGgo|/9j/|UklGR')
MAX_PATH_CHARS = 200  # shown in errors


def split_images(given: Any) -> list[Any]:
  """Returns the single images in an image, an array [N, H, W, 3], or a list of these.

  Raises:
    ImageError: an array has neither three nor four dimensions.
  """
  if isinstance(given, list | tuple):
    return [image for one in given for image in split_images(one)]
  if _is_array(given):
    given = from_torch(given)
    if given.ndim == 4:
      return list(_to_numpy(given))
    if given.ndim != 3:
      raise ImageError(
        f'an array of shape {list(given.shape)} is not an image; give '
        '[height, width, 3], or [images, height, width, 3]'
      )
  return [given]


def read_pixels(image: Any) -> UInt8[np.ndarray, 'H W 3']:
  """Decodes one image of any kind to RGB, exactly like the training data.

  Floats are rounded to 1/255.

  Args:
    image: a path (local or in a bucket), bytes, a PIL image, or a NumPy, JAX or PyTorch
      array [H, W, 3], uint8 or floats in [0, 1].

  Raises:
    ImageError: it is none of these, or cannot be decoded.
  """
  if isinstance(image, str | os.PathLike):
    path = os.fspath(image)
    data = read_file(path)
    try:
      return codec.decode_image(data)
    except ImageError as error:
      raise ImageError(f'{path}: {error}') from None
  if isinstance(image, bytes | bytearray | memoryview):
    return codec.decode_image(bytes(image))
  if isinstance(image, Image.Image):
    if image.mode in ('F', 'I'):  # Files of 16 bits are of mode I;16.
      raise ImageError(
        f'a PIL image of mode {image.mode!r} has no known range; give uint8 or an '
        'array of floats in [0, 1]'
      )
    return codec.to_rgb(image)
  if _is_array(image):
    return _from_array(_to_numpy(image))
  raise ImageError(f'{type(image).__name__} is not an image; give {KINDS}')


def read_file(path: str) -> bytes:
  """Reads the file of an image, local or in a bucket, without decoding it.

  Raises:
    ImageError: it cannot be read.
  """
  if path.startswith(('http://', 'https://')):
    raise ImageError(
      f'{path:.{MAX_PATH_CHARS}} is a URL; download the image and give its bytes'
    )
  try:
    if '://' in path:
      data = epath.Path(path).read_bytes()
    else:
      data = files.read(pathlib.Path(os.path.expanduser(path)))
  except Exception as error:  # Each bucket client has its own exceptions.
    reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
    if isinstance(error, KeyError):  # etils raises this for unknown schemes.
      reason = f'{path.partition("://")[0]}:// is not a known kind of bucket'
    if BASE64.match(path):
      path = f'{path[:32]}…'
      reason = 'base64 text is not a path; give the bytes, base64.b64decode(text)'
    raise ImageError(f'{path:.{MAX_PATH_CHARS}} cannot be read: {reason}') from None
  try:
    lfs_pointer.check(path, data)
  except InputError as error:
    raise ImageError(str(error)) from None
  return data


def _from_array(pixels: np.ndarray) -> UInt8[np.ndarray, 'H W 3']:
  if pixels.ndim != 3 or pixels.shape[-1] != 3 or 0 in pixels.shape:
    first = pixels.ndim == 3 and pixels.shape[0] == 3
    hint = '; move the channels last' if first else ''
    raise ImageError(
      f'an array of shape {list(pixels.shape)} is not an RGB image; give '
      '[height, width, 3]' + hint
    )
  if pixels.dtype == np.uint8:
    return np.ascontiguousarray(pixels)
  # NumPy does not count bfloat16 among the floats.
  if pixels.dtype.kind != 'f' and pixels.dtype.name != 'bfloat16':
    raise ImageError(
      f'an array of {pixels.dtype} has no known range; give uint8 or floats in [0, 1]'
    )
  pixels = pixels.astype(np.float32)
  check_floats(pixels)
  return np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def check_floats(pixels: Float[np.ndarray, '...']) -> None:
  """Checks that pixels are in [0, 1].

  Raises:
    ImageError: some are NaN, infinite or out of range.
  """
  low, high = float(pixels.min()), float(pixels.max())
  if not (np.isfinite(low) and np.isfinite(high)):
    raise ImageError('the array has pixels that are NaN or infinite')
  if low < -TOLERANCE or high > 1 + TOLERANCE:
    hint = '(x + 1) / 2' if high <= 1 + TOLERANCE else 'x / 255, or uint8'
    raise ImageError(
      f'floats from {low:.3g} to {high:.3g} are not in [0, 1]; perhaps give {hint}'
    )


def _is_array(value: Any) -> bool:
  # The elements of an array of paths or of bytes look like arrays themselves.
  is_element = isinstance(value, str | bytes)
  return not is_element and hasattr(value, '__array__') and hasattr(value, 'ndim')


def from_torch(value: Any) -> Any:
  """Converts a PyTorch tensor on any device to an array; returns others unchanged.

  Raises:
    ImageError: its values cannot be copied to NumPy.
  """
  # If PyTorch has not been imported, this cannot be a tensor.
  torch = sys.modules.get('torch')
  if torch is None or not isinstance(value, torch.Tensor):
    return value
  try:
    value = value.detach().resolve_neg()
    # NumPy has no bfloat16.
    return (value.float() if value.is_floating_point() else value).cpu().numpy()
  except (RuntimeError, TypeError, NotImplementedError) as error:
    raise ImageError(f'a tensor of {value.dtype} cannot be read: {error}') from None


def _to_numpy(value: Any) -> np.ndarray:
  value = from_torch(value)
  try:
    return np.asarray(value)
  except (RuntimeError, TypeError, ValueError) as error:
    kind = type(value).__name__
    raise ImageError(f'a {kind} cannot be read as an array: {error}') from None
