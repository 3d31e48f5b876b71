"""A CLIP as a scorer, such as OpenAI's, OpenCLIP's or PickScore.

  model = rahf.load('PickScore_v1')
  for feedback in model.score(['a.png', 'b.png'], 'a red circle'):
    print(feedback.scores['similarity'])
  print(model.preferences(['a.png', 'b.png'], 'a red circle'))

It says one number: similarity, the cosine of the embeddings of image and prompt times
exp(logit_scale) of the model; higher is better. PickScore's published scores, from 20
to 23 for most images, are in this unit. There are neither heatmaps nor words.

Axis letters: N images, B batch, T tokens, H W size of an image, S that of the model.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float, Float64, Int, Int32, UInt8

from rahf.data.images import clip_image
from rahf.errors import InputError
from rahf.inference.clip_directory import ClipDescription
from rahf.inference.feedback import Feedback
from rahf.inference.output_ranges import SIMILARITY
from rahf.inference.scorer import Example, Scorer
from rahf.models.clip import CLIP, MEAN, STD


class ClipText(NamedTuple):
  """A prompt as CLIP's tokens.

  Attributes:
    text: token ids, padded.
    truncated: whether the prompt was too long and lost its end.
  """

  text: Int32[np.ndarray, 'T']
  truncated: bool


class ClipModel(Scorer):
  """A CLIP with its parameters on the devices."""

  description: ClipDescription

  def __init__(
    self,
    description: ClipDescription,
    params: Any,
    *,
    batch_size: int = 64,
    devices: Sequence[jax.Device] | None = None,
  ):
    """Puts the parameters on the devices; see `open_scorer.load`."""
    super().__init__(description, params, batch_size=batch_size, devices=devices)
    self._similarity = jax.jit(self._similarity_of_pixels)

  def preferences(self, images: Any, prompt: str) -> Float64[np.ndarray, 'N']:
    """Returns the probability that each image is preferred among all of one prompt.

    PickScore's model of people's choices (Kirstain et al., 2023, section 4): the
    softmax of the similarities, p_i = exp(s_i) / sum_j exp(s_j). The probabilities
    depend on which images are given; they mean little for a CLIP that was not trained
    on preferences.

    Args:
      images: as for `score`, one image or more.
      prompt: of all images.

    Returns:
      Values in [0, 1], higher is better, that sum to 1; in the order of the images.

    Raises:
      InputError: as for `score`; there is no image, or more than one prompt.
    """
    if not isinstance(prompt, str):
      raise InputError(
        f'prompt = {prompt!r:.200}; give the one text that all images were made from'
      )
    found = [one.scores[SIMILARITY] for one in self.score(images, prompt)]
    if not found:
      raise InputError('images is empty; give one or more to choose from')
    return scipy.special.softmax(np.array(found, np.float64))

  def tokenise(self, text: str) -> ClipText:
    tokens = self.description.tokenizer.encode([text])
    return ClipText(tokens.ids[0], bool(tokens.truncated[0]))

  def resize(self, pixels: UInt8[np.ndarray, 'H W 3']) -> UInt8[np.ndarray, 'S S 3']:
    """Scales the shorter side and cuts the square from the centre, as in training."""
    return clip_image.crop(pixels, self.description.image_size, self._source)

  def scores_and_maps(
    self, params: Any, pixels: Float[Array, 'N H W 3'], text: Int[Array, 'N T']
  ) -> tuple[dict[str, Float[Array, 'N']], dict]:
    size = self.description.image_size
    square = clip_image.crop_floats(pixels, size, self._source)
    return {SIMILARITY: self._similarity_of_square(params, square, text)}, {}

  @property
  def _source(self) -> str:
    """Whose preprocessing the model was trained with."""
    return self.description.tokenizer.cleaning

  def _similarity_of_square(
    self, params: Any, square: Float[Array, 'B S S 3'], text: Int[Array, 'B T']
  ) -> Float[Array, 'B']:
    image = (square - MEAN) / STD
    module = CLIP(self.description.model)
    return module.apply({'params': params}, image, text, method=CLIP.similarity)

  def _similarity_of_pixels(
    self, params: Any, pixels: UInt8[Array, 'B S S 3'], text: Int[Array, 'B T']
  ) -> Float[Array, 'B']:
    square = pixels.astype(jnp.float32) / 255
    return self._similarity_of_square(params, square, text)

  def _score_batch(
    self, examples: Sequence[Example], scores_only: bool
  ) -> list[Feedback]:
    del scores_only  # A CLIP says nothing else.
    found = jax.device_get(self._similarity(self.params, *self._put(examples, 'text')))
    return [
      Feedback(
        prompt=example.prompt,
        size=(example.height, example.width),
        scores={SIMILARITY: float(similarity)},
        truncated=example.row.truncated,
        image=example.image,
      )
      for example, similarity in zip(examples, found, strict=False)
    ]
