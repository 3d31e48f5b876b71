"""The feedback for one image: scores, and heatmaps and misaligned words if any.

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

  What the model does not say is absent: a CLIP gives one score, and neither heatmaps
  nor words. `Scorer.outputs` has names, ranges and directions.

  Attributes:
    prompt: the prompt as it was given.
    size: height and width of the image in pixels.
    scores: by name. Of a RAHF, in [0, 1], higher is better: plausibility, alignment,
      aesthetics, overall. Of a CLIP: similarity, the cosine times the model's scale,
      higher is better.
    truncated: whether the prompt was too long and its end was not read.
    image: the image as it was given, for `overlay`.
    keywords: the words of the prompt in order, each with the probability in [0, 1] that
      the image misses it; higher is worse. NaN for a word after the cut. Words end at
      any white space and at , . ? ! " : ; which belong to no word. None if the model
      does not judge words, or only scores were asked for.
    threshold: a word with a higher probability counts as misaligned; None without
      keywords.
    small_maps: the heatmaps by name, at the model's size; empty if there are none.
  """

  prompt: str
  size: tuple[int, int]
  scores: dict[str, float]
  truncated: bool
  image: Any = dataclasses.field(repr=False)
  keywords: list[tuple[str, float]] | None = None
  threshold: float | None = None
  small_maps: dict[str, Float[np.ndarray, 'S S']] = dataclasses.field(
    default_factory=dict, repr=False
  )

  @functools.cached_property
  def heatmaps(self) -> dict[str, Float[np.ndarray, 'H W']]:
    """Maps by name, implausibility and misalignment, at the image's own size.

    float32 in [0, 1], higher is worse, row 0 at the top. Empty if there are none.
    """
    return {name: resize_map(m, *self.size) for name, m in self.small_maps.items()}

  @property
  def misaligned(self) -> list[str] | None:
    """The words whose probability is above the threshold; None without keywords."""
    if self.keywords is None:
      return None
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
      there_are = ', '.join(self.small_maps) or 'none, the model makes no heatmaps'
      raise InputError(f'{name!r} is not a map; there are {there_are}')
    pixels = inputs.read_pixels(self.image)
    return Image.fromarray(overlay(pixels, self.heatmaps[name]))

  def to_dict(self, *, maps: bool = False) -> dict[str, Any]:
    """Returns a dict for JSON, with None for NaN, and without what is absent.

    Args:
      maps: whether to include the heatmaps, at the image's own size, as base64 of grey
        PNG files in which 255 stands for 1.
    """
    found = {
      'prompt': self.prompt,
      'height': self.size[0],
      'width': self.size[1],
      'scores': {name: _finite(score) for name, score in self.scores.items()},
    }
    if self.keywords is not None:
      found['keywords'] = [
        {
          'word': word,
          'p_misaligned': _finite(p),
          'misaligned': p > self.threshold,
        }
        for word, p in self.keywords
      ]
    found['truncated'] = self.truncated
    if maps and self.small_maps:
      found['heatmaps'] = {
        name: base64.b64encode(encode_map(values)).decode()
        for name, values in self.heatmaps.items()
      }
    return found


def _finite(value: float) -> float | None:
  return value if math.isfinite(value) else None
