"""What is known of a generator's images: scores by prompt, and what has none.

Only numbers and the distinct prompts are kept, so memory does not grow with images.
"""

import collections
from collections.abc import KeysView, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# Why an image is not compared.
NO_PROMPT, UNREADABLE, NOT_FINITE = 'no prompt', 'unreadable', 'score not finite'
LEFT_OUT = (NO_PROMPT, UNREADABLE, NOT_FINITE)
# Images that are named for each reason.
_NAMED = 3


class ScoredImage(NamedTuple):
  """One image with its scores, or why it has none.

  Attributes:
    uid: the name of the image in its source.
    prompt: without white space at its ends; '' if there is none.
    values: of all measures, in their order; () if it is left out.
    truncated: names of the scorers that read only the start of the prompt.
    left_out: one of LEFT_OUT; '' if there are values.
    reason: the error in words, if it is left out.
  """

  uid: str
  prompt: str
  values: tuple[float, ...] = ()
  truncated: Sequence[str] = ()
  left_out: str = ''
  reason: str = ''


class Tally:
  """Counts one generator's images, and averages their scores by prompt.

  Attributes:
    images: all of them.
    left_out: their number by reason, of LEFT_OUT.
    first: by reason, the names of the first ones with their errors.
    truncated: images whose prompt was too long, by scorer.
  """

  def __init__(self):
    self.images = 0
    self.left_out: collections.Counter[str] = collections.Counter()
    self.first: dict[str, list[str]] = {}
    self.truncated: collections.Counter[str] = collections.Counter()
    self._counts: collections.Counter[str] = collections.Counter()
    self._sums: dict[str, np.ndarray] = {}

  def add(self, image: ScoredImage) -> None:
    """Adds an image."""
    self.images += 1
    if image.left_out:
      self.left_out[image.left_out] += 1
      named = self.first.setdefault(image.left_out, [])
      if len(named) < _NAMED:
        named.append(f'{image.uid!r} ({image.reason:.200})')
      return
    self.truncated.update(image.truncated)
    self._counts[image.prompt] += 1
    if image.prompt in self._sums:
      self._sums[image.prompt] += image.values
    else:
      self._sums[image.prompt] = np.array(image.values, np.float64)

  @property
  def prompts(self) -> KeysView[str]:
    """The prompts of the images that have scores, in the order of the first ones."""
    return self._counts.keys()

  def images_of(self, prompts: Sequence[str]) -> int:
    """Returns the number of images with scores of these prompts."""
    return sum(self._counts[prompt] for prompt in prompts)

  def means(self, prompts: Sequence[str]) -> Float[np.ndarray, 'P S']:
    """Returns each measure's mean over the images of each prompt."""
    return np.stack([self._sums[one] / self._counts[one] for one in prompts])
