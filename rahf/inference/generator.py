"""A trained Muse that makes images: `rahf.load(path).generate(prompts, seeds)`.

  generator = rahf.load('runs/muse_shapes_generator/export')
  for image in generator.generate(['a red circle', 'a blue cross'], seeds=0):
    image.show()

An image is a function of model, prompt, seed and number alone: every batch that a
device computes has the same number of rows, whatever is asked for.

Axis letters: B batch, H W image size, T text tokens.
"""

import dataclasses
import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key, UInt8
from PIL import Image

from rahf.data.clip_tokenizer import ClipTokenizer
from rahf.errors import InputError
from rahf.fileio import digests
from rahf.inference.image_generator import (
  InpaintRequest,
  Request,
  check_inpainting,
  check_request,
)
from rahf.inference.scorer import as_list
from rahf.models import muse as muse_lib
from rahf.models.muse import MuseConfig, SamplingConfig
from rahf.pretrained import muse_directory
from rahf.runtime import device_memory

# Rows that a device computes at once, unless the caller says otherwise.
ROWS = 8


class Generator:
  """A Muse with its parameters on the devices.

  Attributes:
    muse: its sizes.
    sampling: how it draws.
    tokenizer: for the prompts.
    folder: of the model.
    summary: one line for people.
    params: on the devices.
    batch_size: rows of all devices together.
  """

  def __init__(
    self,
    muse: MuseConfig,
    sampling: SamplingConfig,
    params: Any,
    tokenizer: ClipTokenizer,
    folder: epath.Path,
    summary: str,
    *,
    rows: int = ROWS,
    devices: Sequence[jax.Device] | None = None,
  ):
    """Puts the parameters on the devices; see `generator_directory.load_generator`.

    Args:
      rows: that a device computes at once; with another number, an image may differ in
        a few tokens, where two are almost equally likely.

    Raises:
      InputError: the parameters do not fit into a device's memory.
    """
    devices = list(devices or jax.local_devices()[:1])
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    device_memory.check_bytes(size, devices[0], 'use a larger device')
    mesh = Mesh(np.array(devices), ('data',))
    self.muse, self.sampling, self.summary = muse, sampling, summary
    self.tokenizer, self.folder = tokenizer, folder
    self.batch_size = rows * len(devices)
    self._whole = NamedSharding(mesh, PartitionSpec())
    self.params = jax.device_put(params, self._whole)
    self._split = NamedSharding(mesh, PartitionSpec('data'))
    self._device, self._rows = devices[0], rows
    # By their functions and the structure of the arguments.
    self._programs: dict[tuple[Any, ...], jax.stages.Compiled] = {}

  def generate(
    self,
    prompts: str | Sequence[str],
    seeds: int | Sequence[int] = 0,
    *,
    negative: str = '',
  ) -> list[Image.Image]:
    """Makes an image for each prompt and seed.

    Args:
      prompts: one for each image, or one for all.
      seeds: one for each image, or one for all; from 0 to 2**32 - 1.
      negative: text that guidance leads away from.

    Returns:
      RGB images in the order of the prompts.

    Raises:
      InputError: a prompt is missing, or a seed is out of range.
    """
    prompts = [prompts] if isinstance(prompts, str | None) else as_list(prompts)
    seeds = [seeds] if np.ndim(seeds) == 0 else list(seeds)
    if 1 not in (len(prompts), len(seeds)) and len(prompts) != len(seeds):
      raise InputError(
        f'{len(prompts)} prompts and {len(seeds)} seeds; give one seed for each '
        'prompt, or a single one of either'
      )
    prompts, seeds = (
      prompts * len(seeds) if len(prompts) == 1 else prompts,
      seeds * len(prompts) if len(seeds) == 1 else seeds,
    )
    requests = [
      Request(prompt, seed, negative=negative)
      for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    return [Image.fromarray(pixels) for pixels in self.draw(requests)]

  def draw(self, requests: Sequence[Request]) -> Iterator[UInt8[np.ndarray, 'H W 3']]:
    """Yields the image of each request, in order.

    Raises:
      InputError: a prompt is missing, or a seed is out of range.
    """
    for request in requests:
      check_request(request)
    for emphasised, group in itertools.groupby(requests, lambda r: bool(r.emphasis)):
      rows = self._biases if emphasised else no_rows
      yield from self.run(self._draw_batch, [*group], rows)

  def inpaint(
    self, requests: Sequence[InpaintRequest]
  ) -> Iterator[UInt8[np.ndarray, 'H W 3']]:
    """Yields images of which the part in the mask is drawn anew, in order.

    The schedule is linear, as aMUSEd's for inpainting.

    Raises:
      InputError: see `image_generator.check_inpainting`; or an image is not of the
        size of those that the model makes.
    """
    side = self.muse.image_size
    for request in requests:
      check_inpainting(request)
      if request.mask.shape != (side, side):
        height, width = request.mask.shape
        raise InputError(
          f'the image to inpaint has {width} x {height} px, but this model takes '
          f'{side} x {side} px; scale it'
        )
    yield from self.run(self._inpaint_batch, requests, _images_and_masks)

  def run(
    self,
    function: Callable[..., UInt8[Array, 'B H W 3']],
    requests: Sequence[Any],
    rows: Callable[[Sequence[Any]], tuple[np.ndarray, ...]],
    shared: tuple[Any, ...] = (),
  ) -> Iterator[UInt8[np.ndarray, 'H W 3']]:
    """Yields the image that a function makes for each request, in order.

    Args:
      function: of the parameters, the tokens of the prompts, those of the negative
        prompts, seeds and numbers [B 2], `rows`, `shared`. It is compiled once.
      requests: of one kind; checked.
      rows: further arrays for a batch of requests, with a row for each.
      shared: further arguments for all batches, such as another model's parameters.

    Raises:
      InputError: the program does not fit into memory.
    """
    for start in range(0, len(requests), self.batch_size):
      part = requests[start : start + self.batch_size]
      filled = [part[row] for row in np.resize(np.arange(len(part)), self.batch_size)]
      text, negative = (
        self.tokenizer.encode([getattr(one, field) for one in filled]).ids
        for field in ('prompt', 'negative')
      )
      seeds = np.array([[one.seed, one.number] for one in filled], np.uint32)
      batch = jax.device_put((text, negative, seeds, *rows(filled)), self._split)
      arguments = (self.params, *batch, *jax.device_put(shared, self._whole))
      key = function, jax.tree.structure(arguments)
      if key not in self._programs:
        self._programs[key] = self._compile(function, arguments)
      images = np.asarray(jax.device_get(self._programs[key](*arguments)))
      yield from images[: len(part)]

  @property
  def takes_emphasis(self) -> bool:
    return True

  @property
  def settings(self) -> dict[str, Any]:
    """How it draws."""
    return dataclasses.asdict(self.sampling)

  @functools.cached_property
  def fingerprint(self) -> str:
    """SHA-256 of all files of the model but its card."""
    found = digests.describe(self.folder)
    found.pop(muse_directory.CARD, None)
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()

  def truncated(self, prompts: Sequence[str]) -> list[str]:
    """Returns those prompts whose end is not read."""
    cut = self.tokenizer.encode(prompts).truncated
    return [prompt for prompt, is_cut in zip(prompts, cut, strict=True) if is_cut]

  def _biases(self, requests: Sequence[Request]) -> tuple[Float[np.ndarray, 'B T']]:
    """Returns what attention to each token gains: a weight w counts as log w."""
    biases = np.zeros((len(requests), self.muse.text.text_length), np.float32)
    for bias, request in zip(biases, requests, strict=True):
      spans = [(start, end) for start, end, _ in request.emphasis]
      tokens = self.tokenizer.tokens_of(request.prompt, spans)
      for places, (_, _, weight) in zip(tokens, request.emphasis, strict=True):
        bias[places] = math.log(weight)
    return (biases,)

  def _compile(
    self, function: Callable, arguments: tuple[Any, ...]
  ) -> jax.stages.Compiled:
    """Returns the program for arguments of these shapes.

    Raises:
      InputError: it does not fit into memory.
    """
    jitted = jax.jit(function, out_shardings=self._split)
    program = jitted.lower(*arguments).compile()
    device_memory.check_program(
      program,
      self._device,
      f'draw fewer images at once than --batch_size={self._rows}',
    )
    return program

  def _draw_batch(
    self,
    params: Any,
    text: Int[Array, 'B T'],
    negative: Int[Array, 'B T'],
    seeds: Int[Array, 'B 2'],
    bias: Float[Array, 'B T'] | None = None,
  ) -> UInt8[Array, 'B H W 3']:
    prompt = self.prompt(text, negative)._replace(bias=bias)
    found = muse_lib.generate(
      self.muse, params, prompt, noise_keys(seeds), sampling=self.sampling
    )
    return to_bytes(found.image)

  def _inpaint_batch(
    self,
    params: Any,
    text: Int[Array, 'B T'],
    negative: Int[Array, 'B T'],
    seeds: Int[Array, 'B 2'],
    image: UInt8[Array, 'B H W 3'],
    mask: Bool[Array, 'B H W'],
  ) -> UInt8[Array, 'B H W 3']:
    found = muse_lib.inpaint(
      self.muse,
      params,
      self.prompt(text, negative),
      image.astype(jnp.float32) / 255,
      mask,
      noise_keys(seeds),
      sampling=dataclasses.replace(self.sampling, schedule='linear'),
    )
    return to_bytes(found.image)

  def prompt(
    self, text: Int[Array, 'B T'], negative: Int[Array, 'B T']
  ) -> muse_lib.Prompt:
    """Returns what the model reads of tokenised texts."""
    size = self.muse.image_size
    return muse_lib.Prompt(
      text, negative, muse_lib.micro_conditions(len(text), size, size)
    )


def noise_keys(seeds: Int[Array, 'B 2']) -> Key[Array, ' B']:
  """Returns the key of each image's noise, given its seed and number."""
  return jax.vmap(lambda s: jax.random.fold_in(jax.random.key(s[0]), s[1]))(seeds)


def no_rows(requests: Sequence[Any]) -> tuple[()]:
  """Returns no further arrays; see `Generator.run`."""
  del requests
  return ()


def _images_and_masks(requests: Sequence[InpaintRequest]) -> tuple[np.ndarray, ...]:
  images = np.stack([one.image for one in requests])
  return images, np.stack([one.mask for one in requests])


def to_bytes(image: Float[Array, 'B H W 3']) -> UInt8[Array, 'B H W 3']:
  """Rounds images in [0, 1]."""
  return jnp.round(255 * image).astype(jnp.uint8)
