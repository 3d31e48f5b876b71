"""What every image generator offers: prompts and seeds in, images out.

`generator.Generator`, our Muse, does, and `learning/diffusers_bridge.py` for pipelines
of diffusers.

Axis letters: H W image size.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, UInt8

from rahf.errors import InputError

MAX_SEED = 2**32 - 1


class Request(NamedTuple):
  """An image to make.

  Attributes:
    seed, number: of its noise; the same noise for all prompts.
    negative: text that guidance leads away from.
    emphasis: parts of the prompt that attention counts several times: the first
      character, the one after the last, and how many times.
  """

  prompt: str
  seed: int
  number: int = 0
  negative: str = ''
  emphasis: tuple[tuple[int, int, float], ...] = ()


class InpaintRequest(NamedTuple):
  """A part of an image to draw anew; the other fields are as in `Request`.

  Attributes:
    image: stays as it is outside of the mask.
    mask: True where it shall change.
  """

  prompt: str
  seed: int
  number: int
  image: UInt8[np.ndarray, 'H W 3']
  mask: Bool[np.ndarray, 'H W']
  negative: str = ''


class _Drawing(Protocol):
  @property
  def batch_size(self) -> int:
    """Images that are drawn together."""
    ...

  @property
  def summary(self) -> str:
    """One line for people."""
    ...

  @property
  def fingerprint(self) -> str:
    """SHA-256 of the model's files; '' if they are not known."""
    ...

  @property
  def settings(self) -> Mapping[str, Any]:
    """How it draws, as JSON values."""
    ...

  @property
  def takes_emphasis(self) -> bool:
    """Whether `Request.emphasis` can be given."""
    ...

  def truncated(self, prompts: Sequence[str]) -> list[str]:
    """Returns those prompts whose end is not read."""
    ...


class ImageGenerator(_Drawing, Protocol):
  """Makes images of prompts."""

  def draw(self, requests: Sequence[Request]) -> Iterator[UInt8[np.ndarray, 'H W 3']]:
    """Yields the image of each request, in order.

    An image is a function of its own request alone.

    Raises:
      InputError: a prompt is missing, or a seed is out of range.
    """
    ...


class Inpainter(_Drawing, Protocol):
  """Draws parts of images anew."""

  def inpaint(
    self, requests: Sequence[InpaintRequest]
  ) -> Iterator[UInt8[np.ndarray, 'H W 3']]:
    """Yields the changed image of each request, in order.

    Outside of the mask it is the original, bit for bit. It is a function of its own
    request alone.

    Raises:
      InputError: see `check_inpainting`; or the model does not take images of this
        size.
    """
    ...


def check_request(request: Request | InpaintRequest) -> None:
  """Checks prompts, seed and number.

  Raises:
    InputError: the prompt is missing or not text, or a number is not whole or out of
      range.
  """
  if not isinstance(request, Request | InpaintRequest):
    raise InputError(
      f'{request!r:.80} is not a request; give a list of Request or InpaintRequest'
    )
  check_text(request.prompt, 'the prompt')
  if not request.prompt.strip():
    raise InputError(f'the prompt is {request.prompt!r}; say what to draw')
  check_text(request.negative, 'the negative prompt')
  for name, value in (('seed', request.seed), ('number', request.number)):
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not 0 <= value <= MAX_SEED:
      raise InputError(
        f'{name} = {value!r:.80}, but must be a whole number from 0 to {MAX_SEED}'
      )


def check_text(text: Any, name: str) -> None:
  """Raises InputError if something is not text, or not valid Unicode."""
  if not isinstance(text, str):
    raise InputError(f'{name} is {text!r:.80}; give a text')
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise InputError(f'{name} {text!r:.200} is not valid Unicode ({error})') from None


def check_inpainting(request: InpaintRequest) -> None:
  """Checks a request, its image and its mask.

  Raises:
    InputError: as `check_request`; the image is not uint8 [H W 3]; or the mask is not
      bool, of another size than the image, empty or full.
  """
  check_request(request)
  image, mask = request.image, request.mask
  if _type(image) != 'uint8' or image.ndim != 3 or image.shape[2] != 3:
    raise InputError(
      f'the image to inpaint is {_described(image)}; give uint8 [height, width, 3]'
    )
  if _type(mask) != 'bool' or mask.shape != image.shape[:2]:
    raise InputError(
      f'the mask is {_described(mask)}; give bool {list(image.shape[:2])}, as the image'
    )
  if not mask.any():
    raise InputError('the mask is empty; mark the pixels that shall change')
  if mask.all():
    raise InputError(
      'the mask covers the whole image; leave a part of it, or draw a new one'
    )


def _type(array: Any) -> str:
  return str(getattr(array, 'dtype', ''))


def _described(array: Any) -> str:
  if isinstance(array, np.ndarray):
    return f'{array.dtype} {list(array.shape)}'
  return f'of the type {type(array).__name__}'
