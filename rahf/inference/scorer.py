"""What every model that scores images offers: `Scorer`, which `rahf.load` returns.

Its kinds are `Model`, a RAHF, and `ClipModel`, a CLIP such as PickScore. They differ
only in what they say about an image: `Scorer.outputs` lists it, with ranges and
directions, and `Feedback` holds it.

Axis letters: N images, B batch, H W size of an image, S that of the model.
"""

import abc
import concurrent.futures
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set, Sized
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, UInt8

from rahf.data.images import inputs
from rahf.errors import InputError
from rahf.inference.feedback import Feedback
from rahf.inference.output_ranges import ModelOutputs


class ScorerDescription(Protocol):
  """What is known of a model before its parameters are read.

  Attributes:
    step: the training step; None for models of other projects.
    image_size: side S of the images that the model takes, in pixels.
    outputs: what the model says, with ranges and directions.
    summary: one line for people.
    fingerprint: SHA-256 of everything that results depend on; '' if it is not known.
  """

  step: int | None

  @property
  def image_size(self) -> int: ...

  @property
  def outputs(self) -> ModelOutputs: ...

  @property
  def summary(self) -> str: ...

  @property
  def fingerprint(self) -> str: ...


class EncodedPrompt(Protocol):
  """A prompt as tokens.

  Attributes:
    text: token ids; their shape depends on the model.
    truncated: whether the prompt was too long and lost its end.
  """

  text: Int[np.ndarray, '...']
  truncated: bool


class Example(NamedTuple):
  """One image and its prompt, preprocessed on the host.

  Attributes:
    image, prompt: as they were given.
    height, width: of the image in pixels.
    pixels: RGB, at the model's size.
    row: the prompt's tokens.
  """

  image: Any
  prompt: str
  height: int
  width: int
  pixels: UInt8[np.ndarray, 'S S 3']
  row: Any


class Scorer(abc.ABC):
  """A model with its parameters on the devices.

  Attributes:
    description: what the model is.
    params: the parameters, on the devices.
    devices: that batches are split over.
    buckets: the batch sizes that are compiled, ascending.
  """

  def __init__(
    self,
    description: ScorerDescription,
    params: Any,
    *,
    batch_size: int,
    devices: Sequence[jax.Device] | None,
  ):
    """Puts the parameters on the devices; see `open_scorer.load`."""
    devices = list(devices or jax.local_devices()[:1])
    if batch_size < len(devices) or batch_size % len(devices):
      raise InputError(
        f'batch_size = {batch_size} is not a positive multiple of the {len(devices)} '
        'devices'
      )
    mesh = Mesh(np.array(devices), ('data',))
    self.description = description
    self.devices = devices
    self.buckets = _buckets(batch_size, len(devices))
    self.params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    self._split = NamedSharding(mesh, PartitionSpec('data'))

  @property
  def outputs(self) -> ModelOutputs:
    """Names, meanings, ranges and directions of what the model says."""
    return self.description.outputs

  def score(self, images: Any, prompts: str | Sequence[str]) -> list[Feedback]:
    """Scores images, each with the prompt that it was made from.

    Args:
      images: one image or a list. An image is a path, the bytes of a PNG, JPEG or WEBP
        file, a PIL image, or an array of NumPy, JAX or PyTorch, [H, W, 3], uint8 or
        floats in [0, 1]; an array [N, H, W, 3] is N images. Kinds and sizes may differ.
      prompts: one for each image, in the same order, or one for all.

    Returns:
      Feedback in the order of the images; a list even for a single image. Each holds
      its maps at the model's size, so score many thousands of images in parts.

    Raises:
      InputError: an image cannot be read or a prompt is missing.
    """
    given = inputs.split_images(images)
    prompts = one_each(prompts, len(given))

    def prepare(number: int) -> Example:
      try:
        return self.prepare(given[number], prompts[number])
      except InputError as error:
        raise InputError(f'images[{number}]: {error}') from None

    found: list[Feedback] = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
      parts = _parts(range(len(given)), self.buckets[-1])
      ahead = pool.map(prepare, next(parts, ()))
      while ready := list(ahead):
        # Threads prepare the next batch while the device works on this one.
        ahead = pool.map(prepare, next(parts, ()))
        found += self.score_examples(ready)
    return found

  def prepare(self, image: Any, prompt: str) -> Example:
    """Decodes and scales one image as in training, and tokenises its prompt.

    Thread-safe.

    Raises:
      InputError: the image cannot be read, or the prompt is missing.
    """
    row = self.encode(prompt)
    pixels = inputs.read_pixels(image)
    return Example(image, prompt, *pixels.shape[:2], self.resize(pixels), row)

  def score_examples(
    self, examples: Sequence[Example], *, scores_only: bool = False
  ) -> list[Feedback]:
    """Scores any number of examples that `prepare` returned.

    Args:
      scores_only: whether to leave out heatmaps and words, which a RAHF then need
        not compute. Scores may differ in the last digits.
    """
    return [
      feedback
      for batch in _parts(examples, self.buckets[-1])
      for feedback in self._score_batch(batch, scores_only)
    ]

  def fill(self, count: int) -> Int[np.ndarray, 'B']:
    """Returns which of `count` rows fill a bucket: all of them, then padding.

    Rows do not see each other: any will do as padding.
    """
    bucket = next(size for size in self.buckets if size >= count)
    return np.resize(np.arange(count), bucket)

  def _put(self, examples: Sequence[Example], *fields: str) -> tuple[jax.Array, ...]:
    """Returns pixels and fields of the rows as a batch on the devices, padded."""
    filled = [examples[row] for row in self.fill(len(examples))]
    batch = (
      np.stack([example.pixels for example in filled]),
      *(np.stack([getattr(one.row, field) for one in filled]) for field in fields),
    )
    return jax.device_put(batch, self._split)

  def encode(self, prompt: str) -> EncodedPrompt:
    """Tokenises one prompt.

    Raises:
      InputError: the prompt is missing, or is not valid Unicode.
    """
    check_prompt(prompt)
    return self.tokenise(prompt)

  @abc.abstractmethod
  def tokenise(self, text: str) -> EncodedPrompt:
    """Tokenises a prompt that was checked, or may be empty."""

  @abc.abstractmethod
  def resize(self, pixels: UInt8[np.ndarray, 'H W 3']) -> UInt8[np.ndarray, 'S S 3']:
    """Scales an image to the model's size, as in its training."""

  @abc.abstractmethod
  def scores_and_maps(
    self, params: Any, pixels: Float[Array, 'N H W 3'], text: Int[Array, 'N ...']
  ) -> tuple[dict[str, Float[Array, 'N']], dict[str, Float[Array, 'N S S']]]:
    """Computes scores and maps by name, as a pure function for jit, grad and vmap.

    Pixels are scaled as by `resize`, but not rounded to levels of 1/255.

    Args:
      params: `self.params`, or others of their shapes.
      pixels: RGB in [0, 1], row 0 at the top; not checked.
      text: of `encode`, one row per image.
    """

  @abc.abstractmethod
  def _score_batch(
    self, examples: Sequence[Example], scores_only: bool
  ) -> list[Feedback]:
    """Scores at most the largest bucket of examples."""


def check_prompt(prompt: Any) -> None:
  """Raises InputError if a prompt is missing or is not valid Unicode."""
  if not isinstance(prompt, str) or not prompt.strip():
    raise InputError(
      f'its prompt is {prompt!r}; give the text that the image was made from'
    )
  try:
    prompt.encode()
  except UnicodeEncodeError as error:
    raise InputError(
      f'its prompt {prompt!r} is not valid Unicode ({error}); read it as UTF-8'
    ) from None


def one_each(prompts: Any, count: int) -> list[Any]:
  """Returns a list of `count` prompts, given one for each image or one for all.

  Raises:
    InputError: their number differs, they have no order, or they are not prompts.
  """
  if isinstance(prompts, str | None):
    return [prompts] * count
  # One more shows that there are too many, even in an endless generator.
  found = as_list(prompts, count + 1)
  if len(found) != count:
    number = len(prompts) if isinstance(prompts, Sized) else len(found)
    more = 'or more ' if len(found) > count and number == len(found) else ''
    raise InputError(
      f'{number} {more}prompts for {count} images; give one for each, or a single '
      'string for all'
    )
  return found


def as_list(prompts: Any, most: int | None = None) -> list[Any]:
  """Returns the first `most` prompts as a list, without checking each of them.

  Raises:
    InputError: they have no order, or are not a sequence.
  """
  if isinstance(prompts, Set | Mapping):
    raise InputError(
      f'prompts: a {type(prompts).__name__} does not say which prompt belongs to which '
      'image; give a list in the order of the images'
    )
  # An array of more than one axis, or a table, is not a sequence of strings.
  if (
    isinstance(prompts, bytes | bytearray)
    or not isinstance(prompts, Iterable)
    or getattr(prompts, 'ndim', 1) != 1
  ):
    raise InputError(
      f'prompts = {prompts!r:.200}; give a string for each image, or a single one for '
      'all'
    )
  return list(itertools.islice(prompts, most))


def _parts(items: Sequence, size: int) -> Iterator[Sequence]:
  """Splits a sequence into parts of this size; the last may be smaller."""
  return (items[start : start + size] for start in range(0, len(items), size))


def _buckets(batch_size: int, devices: int) -> tuple[int, ...]:
  """Returns the batch size, a quarter of it and so on, all multiples of `devices`."""
  sizes, rows = [], batch_size // devices
  while rows > 1:
    sizes.append(rows * devices)
    rows = -(-rows // 4)
  return (*reversed([*sizes, devices]),)
