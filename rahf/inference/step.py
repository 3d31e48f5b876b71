"""The inference step: outputs for a batch of images and prompts, without labels.

Axis letters: B batch, N images, K texts, L prompt tokens, S image size of the model,
H W size of an image, C colours.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from rahf.data import schema
from rahf.data.images import codec
from rahf.models.rahf import RAHF, Fused, Outputs, RAHFConfig

# A word with a higher probability is misaligned, where no split has chosen a threshold.
ANY_THRESHOLD = 0.5

Infer = Callable[[Any, Array, Array, Array], Outputs]
"""From (params, image, text, word_end) to maps, scores and p_misaligned."""


def make_infer(
  model: RAHF, *, decoder: str, mark_ids: tuple[int, ...], length: int
) -> Infer:
  """Returns the step as a pure function of (params, image, text, word_end).

  `image` is float32[B, S, S, 3] in [-1, 1]; scores and maps are differentiable in it.
  `text` and `word_end` are as in schema.Batch.

  Args:
    decoder, mark_ids, length: see `judge_words`.
  """

  def infer(
    params: Any,
    image: Float[Array, 'B S S 3'],
    text: Int[Array, 'B K L'],
    word_end: Bool[Array, 'B L'],
  ) -> Outputs:
    fused, outputs = encode_and_score(model, params, image, text)
    p_misaligned = judge_words(
      model,
      params,
      fused,
      text,
      word_end,
      decoder=decoder,
      mark_ids=mark_ids,
      length=length,
    )
    return outputs._replace(p_misaligned=p_misaligned)

  return infer


def encode_and_score(
  model: RAHF, params: Any, image: Float[Array, 'B S S 3'], text: Int[Array, 'B K L']
) -> tuple[Fused, Outputs]:
  """Returns the encoder's output, and maps and scores; differentiable in the image."""
  variables = {'params': params}
  fused = model.apply(variables, image, text, train=False, method=RAHF.encode)
  return fused, model.apply(variables, fused, method=RAHF.maps_and_scores)


def scores_and_maps(
  config: RAHFConfig,
  params: Any,
  pixels: Float[Array, 'N H W 3'],
  text: Int[Array, 'N K L'],
) -> tuple[dict[str, Float[Array, 'N']], dict[str, Float[Array, 'N S S']]]:
  """Returns scores and maps by name; differentiable in the pixels, which are in [0, 1].

  Args:
    pixels: of any size.
  """
  image = codec.to_signed(scale(pixels, config.image_size))
  _, found = encode_and_score(RAHF(config), params, image, text)
  scores = dict(zip(schema.SCORES, jnp.moveaxis(found.scores, 1, 0), strict=True))
  maps = dict(zip(schema.MAPS, jnp.moveaxis(found.maps, 1, 0), strict=True))
  return scores, maps


def from_pixels(infer: Infer) -> Infer:
  """Returns the step for images of uint8, which it scales to [-1, 1] first."""

  def infer_pixels(
    params: Any, pixels: UInt8[Array, 'B S S 3'], text: Array, word_end: Array
  ) -> Outputs:
    image = codec.to_signed(pixels.astype(jnp.float32) / 255)
    return infer(params, image, text, word_end)

  return infer_pixels


def scale(
  pixels: Float[Array, 'N H W C'], size: int
) -> Float[Array, 'N {size} {size} C']:
  """Resizes like `codec.resize`, but without rounding to levels of 1/255."""
  shape = (pixels.shape[0], size, size, pixels.shape[3])
  return jax.image.resize(pixels, shape, 'bilinear', antialias=True)


def judge_words(
  model: RAHF,
  params: Any,
  fused: Fused,
  text: Int[Array, 'B K L'],
  word_end: Bool[Array, 'B L'],
  *,
  decoder: str,
  mark_ids: tuple[int, ...],
  length: int,
) -> Float[Array, 'B L']:
  """Returns the probability that each word is misaligned (`models/constrained.py`).

  Args:
    decoder: `config.keywords.decoder`; 'parallel' judges each word by itself, all
      others judge it given the marks before it.
    mark_ids: token ids of the mark.
    length: tokens of the prompt with its marks.

  Returns:
    Probabilities at the token right after each word, 0 elsewhere.
  """
  return model.apply(
    {'params': params},
    fused,
    text[:, -1],
    word_end,
    mark_ids=mark_ids,
    sequential=decoder != 'parallel',
    length=length,
    method=RAHF.judge_words,
  )
