"""Scores images with a trained model: `rahf.load(directory).score(images, prompts)`.

  model = rahf.load('runs/quickstart/export')
  for feedback in model.score(['a.png', 'b.png'], 'a red circle'):
    print(feedback.scores, feedback.keywords)
    feedback.overlay('implausibility').show()

Scores are in [0, 1], higher is better: plausibility, alignment, aesthetics, overall.
Maps are in [0, 1], higher is worse: implausibility, misalignment. Keywords are words of
the prompt with the probability in [0, 1] that the image misses them, higher is worse;
words end at any white space and at , . ? ! " : ;

Axis letters: B batch, L tokens, H W size of an image, S that of the model.
"""

import concurrent.futures
import dataclasses
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set, Sized
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Int, UInt8

from rahf.data import label_words, schema
from rahf.data.images import inputs
from rahf.data.images.codec import resize
from rahf.data.pipeline.decoding import PromptRow, encode_prompt
from rahf.data.tokenizer import Tokenizer
from rahf.errors import InputError
from rahf.inference import model_directory, model_files
from rahf.inference.feedback import Feedback
from rahf.inference.model_directory import Description
from rahf.inference.step import ANY_THRESHOLD, from_pixels, make_infer
from rahf.models.rahf import RAHF, Outputs
from rahf.models.sizes import DTYPES
from rahf.runtime import accelerator


def load(
  path: str | os.PathLike,
  *,
  batch_size: int = 64,
  dtype: str | None = None,
  devices: Sequence[jax.Device] | None = None,
) -> 'Model':
  """Loads a model from a model directory, which `--mode=export` writes.

  Nothing in it is run as code, and TensorFlow is not needed.

  Args:
    path: of a local directory, or of one in a bucket (gs://…, s3://…), for which the
      client that etils.epath asks for must be installed.
    batch_size: the largest number of images computed together. Smaller batches are
      padded to a quarter of it, a sixteenth and so on, or 1. Each size compiles once.
    dtype: compute dtype, 'float32' or 'bfloat16'; None for that of training.
    devices: to split batches over; None for the first device of this process.

  Raises:
    InputError: there is no such directory, it is damaged (its files are compared with
      their SHA-256), or this version cannot read it; or JAX was installed or set to use
      a GPU or TPU, finds none, and no devices are given.
    OSError: the GPU or TPU cannot be used now.
  """
  if devices is None:
    accelerator.start(accelerator.choose())
  folder = model_directory.find(path)
  description = model_directory.read_description(folder)
  if dtype is not None:
    if dtype not in DTYPES:
      raise InputError(f'dtype = {dtype!r} is not one of {", ".join(DTYPES)}')
    sizes = dataclasses.replace(description.model, dtype=dtype)
    description = dataclasses.replace(description, model=sizes)
  tokenizer = model_files.read_tokenizer(folder, description)
  params = model_files.read_params(folder, description)
  return Model(description, params, tokenizer, batch_size=batch_size, devices=devices)


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
  row: PromptRow


class Model:
  """A trained model with its parameters on the devices.

  Attributes:
    description: the contents of model.json.
    params: the parameters, on the devices.
    tokenizer: for the prompts.
    devices: that batches are split over.
    infer: the step as a pure function of (params, image in [-1, 1], text, word_end),
      not compiled (`step.make_infer`).
    buckets: the batch sizes that are compiled, ascending.
  """

  def __init__(
    self,
    description: Description,
    params: Any,
    tokenizer: Tokenizer,
    *,
    batch_size: int = 64,
    devices: Sequence[jax.Device] | None = None,
  ):
    """Puts the parameters on the devices; see `load`."""
    devices = list(devices or jax.local_devices()[:1])
    if batch_size < len(devices) or batch_size % len(devices):
      raise InputError(
        f'batch_size = {batch_size} is not a positive multiple of the {len(devices)} '
        'devices'
      )
    mesh = Mesh(np.array(devices), ('data',))
    self.description = description
    self.tokenizer = tokenizer
    self.devices = devices
    self.buckets = _buckets(batch_size, len(devices))
    self._split = NamedSharding(mesh, PartitionSpec('data'))
    self.params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    self.infer = make_infer(
      RAHF(description.model),
      decoder=description.decoder,
      mark_ids=tokenizer.mark_ids,
      length=description.target_length,
    )
    self._infer_pixels = jax.jit(from_pixels(self.infer))

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
    scaled = resize(pixels, self.description.model.image_size)
    return Example(image, prompt, *pixels.shape[:2], scaled, row)

  def encode(self, prompt: str) -> PromptRow:
    """Tokenises one prompt to the `text` and `word_end` that `infer` takes.

    Raises:
      InputError: the prompt is missing, or is not valid Unicode.
    """
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
    description = self.description
    if description.joined_words:  # The words, and how many there are, stay the same.
      prompt = ' '.join(label_words.label_tokens(prompt))
    return encode_prompt(
      prompt,
      self.tokenizer,
      description.model.variant,
      description.text_length,
      label_words.word_spans(prompt),
      description.tasks,
    )

  def fill(self, count: int) -> Int[np.ndarray, 'B']:
    """Returns which of `count` rows fill a bucket: all of them, then padding.

    Rows do not see each other: any will do as padding.
    """
    bucket = next(size for size in self.buckets if size >= count)
    return np.resize(np.arange(count), bucket)

  def score_examples(self, examples: Sequence[Example]) -> list[Feedback]:
    """Scores any number of examples that `prepare` returned."""
    return [
      self._feedback(example, found)
      for batch in _parts(examples, self.buckets[-1])
      for example, found in zip(batch, self._run(batch), strict=False)
    ]

  def _run(self, examples: Sequence[Example]) -> Iterator[Outputs]:
    """Yields the outputs of each row, without the batch axis, padding included."""
    filled = [examples[row] for row in self.fill(len(examples))]
    batch = (
      np.stack([example.pixels for example in filled]),
      np.stack([example.row.text for example in filled]),
      np.stack([example.row.word_end for example in filled]),
    )
    found = self._infer_pixels(self.params, *jax.device_put(batch, self._split))
    found = jax.device_get(found)
    return (
      jax.tree.map(lambda array, row=row: array[row], found)
      for row in range(len(filled))
    )

  def _feedback(self, example: Example, found: Outputs) -> Feedback:
    spans = label_words.word_spans(example.prompt)
    judged = self._judged(example.row, found.p_misaligned)
    threshold = self.description.threshold
    return Feedback(
      prompt=example.prompt,
      size=(example.height, example.width),
      scores=dict(zip(schema.SCORES, map(float, found.scores), strict=True)),
      keywords=[
        (example.prompt[start:end], p)
        for (start, end), p in zip(spans, judged, strict=True)
      ],
      threshold=ANY_THRESHOLD if threshold is None else threshold,
      truncated=example.row.truncated or any(map(math.isnan, judged)),
      # A copy, since the row is a view of its whole batch.
      small_maps=dict(zip(schema.MAPS, found.maps.copy(), strict=True)),
      image=example.image,
    )

  def _judged(self, row: PromptRow, p: Float[np.ndarray, 'L']) -> list[float]:
    """Returns p of each word, NaN for words after a cut.

    The sequential decoder also has no room for the last words if it makes many marks.
    """
    room, mark = math.inf, 0
    if self.description.decoder != 'parallel':
      room, mark = self.description.target_length, len(self.tokenizer.mark_ids)
    judged, marks = [], 0
    for end in row.pieces.word_ends:
      inside = end < len(p) and end + marks < room
      judged.append(float(p[end]) if inside else math.nan)
      marks += mark * (judged[-1] > 0.5)
    return judged


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
