"""Pipelines of diffusers as image generators. Imports PyTorch and diffusers.

  pipeline = open_diffusers('models/stable-diffusion', dtype='bfloat16')
  generator = DiffusersGenerator(pipeline, settings={'num_inference_steps': 25})
  inpainter = DiffusersInpainter(pipeline)

An image is a function of pipeline, settings, prompt, seed and number: noise is drawn on
the CPU, for each image from a random number generator of its own, and every call has
the same number of rows. The images of number 0 are those that the pipeline makes with
`generator=torch.Generator().manual_seed(seed)`.

Axis letters: B batch, H W image size, h w size of the grid of latents or tokens.
"""

import functools
import hashlib
import inspect
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import diffusers
import numpy as np
import torch
from etils import epath
from jaxtyping import Bool, Float, UInt8

from rahf.errors import InputError
from rahf.fileio import digests
from rahf.inference.image_generator import (
  InpaintRequest,
  Request,
  check_inpainting,
  check_request,
)
from rahf.learning import diffusers_emphasis
from rahf.learning.diffusers_pipeline import for_inpainting, is_amused

# Images of a call, unless the caller says otherwise.
ROWS = 4
# What requests determine; everything else of a call can be a setting.
OWN = (
  *('prompt', 'negative_prompt', 'generator', 'image', 'mask_image', 'output_type'),
  *('num_images_per_prompt', 'return_dict'),
)


def random_generator(seed: int, number: int) -> torch.Generator:
  """Returns the source of an image's noise."""
  if number:
    # PyTorch's seeds for the CPU have 32 bits; it ignores others.
    seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
  return torch.Generator().manual_seed(seed)


class _Bridge:
  """What pipelines for new images and for inpainting have in common.

  Attributes:
    pipeline: in evaluation mode and without progress bars from now on.
    batch_size: images of a call; 1 for pipelines that take a single random number
      generator, such as aMUSEd's.
    settings: further arguments of each call.
    summary: one line for people.
  """

  def __init__(
    self,
    pipeline: diffusers.DiffusionPipeline,
    *,
    rows: int = ROWS,
    settings: Mapping[str, Any] | None = None,
    folder: str | os.PathLike | None = None,
  ):
    """Wraps a pipeline.

    Args:
      rows: images of a call; with another number, images may differ by rounding.
      settings: further arguments of each call, such as 'num_inference_steps',
        'guidance_scale' and 'height'; the pipeline has defaults.
      folder: that it was loaded from, for `fingerprint`.

    Raises:
      InputError: the pipeline is of another kind, or does not take a setting.
    """
    self._parameters = _parameters(pipeline)
    self._name = type(pipeline).__name__
    self.settings = dict(settings or {})
    for setting in self.settings:
      if setting in OWN or setting not in self._parameters:
        known = [name for name in self._parameters if name not in ('self', *OWN)]
        raise InputError(
          f'{self._name} has no setting {setting}; it has {", ".join(known)}'
        )
    if ('height' in self.settings) != ('width' in self.settings):
      # Some pipelines ignore one alone.
      raise InputError('give the settings height and width together')
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
      if isinstance(part, torch.nn.Module):
        part.eval()
    self.pipeline, self._folder = pipeline, folder
    takes_list = 'list' in str(self._parameters['generator'].annotation).lower()
    self._one_by_one = not takes_list
    self.batch_size = rows if takes_list else 1
    self.summary = f'{self._name} of diffusers, in PyTorch on {pipeline.device}'

  @functools.cached_property
  def fingerprint(self) -> str:
    """SHA-256 of all files of the folder; '' if there is none."""
    if self._folder is None:
      return ''
    found = digests.describe(epath.Path(self._folder))
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()

  def truncated(self, prompts: Sequence[str]) -> list[str]:
    """Returns those prompts that no tokenizer of the pipeline reads to the end."""
    lengths = []
    for name, tokenizer in self.pipeline.components.items():
      if 'tokenizer' in name and tokenizer is not None:
        longest = tokenizer.model_max_length
        if (own := self._max_sequence_length()) is not None:
          longest = min(longest, own)
        lengths.append((tokenizer, longest))
    return [
      prompt
      for prompt in prompts
      if lengths
      and all(
        len(tokenizer(prompt, verbose=False).input_ids) > longest
        for tokenizer, longest in lengths
      )
    ]

  def _max_sequence_length(self) -> int | None:
    name = 'max_sequence_length'
    if name not in self._parameters:
      return None
    return self.settings.get(name, self._parameters[name].default)

  @property
  def takes_emphasis(self) -> bool:
    return diffusers_emphasis.takes_emphasis(self.pipeline)

  def _check_text(self, request: Request | InpaintRequest) -> None:
    if request.negative and 'negative_prompt' not in self._parameters:
      raise InputError(f'{self._name} takes no negative prompt; leave it out')
    if getattr(request, 'emphasis', ()) and not self.takes_emphasis:
      raise InputError(f'{self._name} takes no emphasis; change the prompt instead')

  def _check_size(
    self, image: UInt8[np.ndarray, 'H W 3'], size: tuple[int, int]
  ) -> None:
    height, width, _ = image.shape
    if (height, width) != size:
      raise InputError(
        f'{self._name} made an image of {width} x {height} px instead of {size[1]} x '
        f'{size[0]}; choose a size that it makes'
      )

  def _batches(
    self, requests: Sequence[Any], kind: Callable[[Any], Any]
  ) -> Iterator[list[Any]]:
    """Yields requests of one kind that follow each other, at most a batch."""
    for _, group in itertools.groupby(requests, kind):
      part = list(group)
      for start in range(0, len(part), self.batch_size):
        yield part[start : start + self.batch_size]

  def _call(
    self,
    part: Sequence[Request | InpaintRequest],
    make_inputs: Callable[[Sequence[Any]], dict[str, Any]] = lambda filled: {},
  ) -> Iterator[UInt8[np.ndarray, 'H W 3']]:
    """Yields the images of requests that fit into one call.

    Args:
      make_inputs: further arguments of the call, for requests that are repeated until
        the batch is full.
    """
    filled = [part[row] for row in np.resize(np.arange(len(part)), self.batch_size)]
    generators = [random_generator(one.seed, one.number) for one in filled]
    arguments = {
      **self.settings,
      # A prompt for each image: of several images of a prompt, the order differs
      # between pipelines.
      'prompt': [one.prompt for one in filled],
      'generator': generators[0] if self._one_by_one else generators,
      'output_type': 'np',
      **make_inputs(filled),
    }
    if filled[0].negative:
      arguments['negative_prompt'] = [one.negative for one in filled]
    if getattr(filled[0], 'emphasis', ()):
      arguments = diffusers_emphasis.replace_prompts(self.pipeline, arguments, filled)
    try:
      with torch.no_grad():
        found = self.pipeline(**arguments)
    except ValueError as error:
      raise InputError(f'{self._name} refuses a request: {error!s:.1000}') from error
    flags = getattr(found, 'nsfw_content_detected', None) or [False] * len(filled)
    for row, one in enumerate(part):
      yield self._to_bytes(one, found.images[row], flags[row])

  def _to_bytes(
    self,
    request: Request | InpaintRequest,
    image: Float[np.ndarray, 'H W 3'],
    flagged: bool,
  ) -> UInt8[np.ndarray, 'H W 3']:
    what = (
      f'the image of {request.prompt!r:.200}, seed {request.seed}, number '
      f'{request.number}'
    )
    if flagged:
      raise InputError(
        f'{what} was blackened by the safety checker of {self._name}; leave out the '
        'prompt, or load the pipeline without it, as `open_diffusers` does'
      )
    if not np.isfinite(image).all():
      raise InputError(
        f'{what} has values that are not finite; load {self._name} with another dtype '
        f'than {self.pipeline.dtype}'
      )
    return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)


class DiffusersGenerator(_Bridge):
  """A pipeline for text to image, as an `image_generator.ImageGenerator`."""

  def __init__(self, pipeline: diffusers.DiffusionPipeline, **options):
    """Wraps a pipeline; the options are those of `_Bridge`."""
    parameters = _parameters(pipeline)
    if 'prompt' not in parameters or {'mask_image', 'strength'} & parameters.keys():
      raise InputError(
        f'{type(pipeline).__name__} does not make images of prompts alone; give a '
        'pipeline for text to image'
      )
    super().__init__(pipeline, **options)

  def draw(self, requests: Sequence[Request]) -> Iterator[UInt8[np.ndarray, 'H W 3']]:
    """Yields the image of each request, in order.

    Raises:
      InputError: a prompt is missing, a seed is out of range, or the pipeline refuses
        the prompt or a setting; or an image was blackened by a safety checker or is not
        finite, after those before it were yielded.
    """
    for request in requests:
      check_request(request)
      self._check_text(request)
    size = self.settings.get('height'), self.settings.get('width')
    for part in self._batches(
      requests, lambda one: (bool(one.negative), bool(one.emphasis))
    ):
      for image in self._call(part):
        if None not in size:
          self._check_size(image, size)
        yield image


class DiffusersInpainter(_Bridge):
  """A pipeline for inpainting, as an `image_generator.Inpainter`."""

  def __init__(self, pipeline: diffusers.DiffusionPipeline, **options):
    """Wraps a pipeline; the options are those of `_Bridge`.

    Args:
      pipeline: for inpainting; or for text to image, if diffusers can make one for
        inpainting of its parts.
    """
    if 'mask_image' not in _parameters(pipeline):
      pipeline = for_inpainting(pipeline)
    super().__init__(pipeline, **options)
    if is_amused(pipeline):
      self._side = pipeline.vae_scale_factor
      # Its mask is scaled to multiples of this in tokens, not in pixels.
      self._multiple = self._side**2
    else:
      self._side = self._multiple = pipeline.image_processor.config.vae_scale_factor

  def inpaint(
    self, requests: Sequence[InpaintRequest]
  ) -> Iterator[UInt8[np.ndarray, 'H W 3']]:
    """Yields images of which the part in the mask is drawn anew, in order.

    A latent or token is drawn anew if the mask touches it; outside of the mask the
    original is pasted.

    Raises:
      InputError: see `image_generator.check_inpainting` and `DiffusersGenerator.draw`;
        or the size of an image is not one that the pipeline takes.
    """
    for request in requests:
      check_inpainting(request)
      self._check_text(request)
      height, width = request.mask.shape
      if height % self._multiple or width % self._multiple:
        raise InputError(
          f'the image to inpaint has {width} x {height} px, but {self._name} takes '
          f'multiples of {self._multiple} px; scale or crop it'
        )
    for part in self._batches(
      requests, lambda one: (one.mask.shape, bool(one.negative))
    ):
      for request, new in zip(part, self._call(part, self._inputs), strict=True):
        self._check_size(new, request.mask.shape)
        yield np.where(request.mask[..., None], new, request.image)

  def _inputs(self, filled: Sequence[InpaintRequest]) -> dict[str, Any]:
    height, width = filled[0].mask.shape
    images = np.stack([one.image for one in filled]).astype(np.float32) / 255
    mask = pool(np.stack([one.mask for one in filled]), self._side)
    if not is_amused(self.pipeline):
      mask = mask.repeat(self._side, 1).repeat(self._side, 2)
    sizes = {'height': height, 'width': width}
    return {
      'image': torch.from_numpy(images).permute(0, 3, 1, 2),
      'mask_image': torch.from_numpy(mask[:, None]).float(),
      **{name: size for name, size in sizes.items() if name in self._parameters},
    }


def pool(mask: Bool[np.ndarray, 'B H W'], side: int) -> Bool[np.ndarray, 'B h w']:
  """Returns which squares a mask touches, if only at one pixel.

  Pipelines pick one pixel of each square or average them, so that thin masks vanish.
  """
  batch, height, width = mask.shape
  squares = mask.reshape(batch, height // side, side, width // side, side)
  return squares.any((2, 4))


def _parameters(pipeline: diffusers.DiffusionPipeline) -> Mapping[str, Any]:
  return inspect.signature(type(pipeline).__call__).parameters
