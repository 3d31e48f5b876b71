"""The feedback for one image: scores, heatmaps and misaligned words.

Axis letters: H W size of an image, S that of the model.
"""

import base64
import dataclasses
import functools
import math
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from rahf.data.images import inputs
from rahf.data.images.codec import encode_map
from rahf.drawing.heatmap import overlay
from rahf.errors import InputError
from rahf.metrics.saliency import resize_map


@dataclasses.dataclass(frozen=True, eq=False)
class Feedback:
  """A model's feedback for one image and its prompt.

  Attributes:
    prompt: the prompt as it was given.
    size: height and width of the image in pixels.
    scores: by name, in [0, 1], higher is better: plausibility, alignment, aesthetics,
      overall.
    keywords: the words of the prompt in order, each with the probability in [0, 1] that
      the image misses it; higher is worse. NaN for a word after the cut. Words end at
      any white space and at , . ? ! " : ; which belong to no word.
    threshold: a word with a higher probability counts as misaligned.
    truncated: whether the prompt was too long and its end was not read.
    small_maps: the heatmaps by name, at the model's size.
    image: the image as it was given, for `overlay`.
  """

  prompt: str
  size: tuple[int, int]
  scores: dict[str, float]
  keywords: list[tuple[str, float]]
  threshold: float
  truncated: bool
  small_maps: dict[str, Float[np.ndarray, 'S S']] = dataclasses.field(repr=False)
  image: Any = dataclasses.field(repr=False)

  @functools.cached_property
  def heatmaps(self) -> dict[str, Float[np.ndarray, 'H W']]:
    """Maps by name, implausibility and misalignment, at the image's own size.

    float32 in [0, 1], higher is worse, row 0 at the top.
    """
    return {name: resize_map(m, *self.size) for name, m in self.small_maps.items()}

  @property
  def misaligned(self) -> list[str]:
    """The words whose probability is above the threshold."""
    return [word for word, p in self.keywords if p > self.threshold]

  def overlay(self, name: str) -> Image.Image:
    """Returns the image in grey under a heatmap, whose colours range from 0 to 1.

    An image that was given as a path is read again.

    Args:
      name: of the map, 'implausibility' or 'misalignment'.

    Raises:
      InputError: there is no such map, or the file no longer exists.
    """
    if name not in self.small_maps:
      raise InputError(f'{name!r} is not a map; there are {", ".join(self.small_maps)}')
    pixels = inputs.read_pixels(self.image)
    return Image.fromarray(overlay(pixels, self.heatmaps[name]))

  def to_dict(self, *, maps: bool = False) -> dict[str, Any]:
    """Returns a dict for JSON, with None for NaN.

    Args:
      maps: whether to include the heatmaps, at the image's own size, as base64 of grey
        PNG files in which 255 stands for 1.
    """
    found = {
      'prompt': self.prompt,
      'height': self.size[0],
      'width': self.size[1],
      'scores': {name: _finite(score) for name, score in self.scores.items()},
      'keywords': [
        {
          'word': word,
          'p_misaligned': _finite(p),
          'misaligned': p > self.threshold,
        }
        for word, p in self.keywords
      ],
      'truncated': self.truncated,
    }
    if maps:
      found['heatmaps'] = {
        name: base64.b64encode(encode_map(values)).decode()
        for name, values in self.heatmaps.items()
      }
    return found


def _finite(value: float) -> float | None:
  return value if math.isfinite(value) else None
