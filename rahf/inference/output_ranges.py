"""Meaning, range and direction of each output, in words for people."""

from typing import Any, NamedTuple


class Scale(NamedTuple):
  """The numbers of one kind of output.

  Attributes:
    range: the lowest and the highest.
    direction: which end is the better one.
  """

  range: tuple[float, float]
  direction: str

  @property
  def limits(self) -> str:
    return '{:g} to {:g}'.format(*self.range)

  def __str__(self) -> str:
    return f'{self.limits}, {self.direction}'

  def to_dict(self) -> dict[str, Any]:
    """Returns the fields for JSON."""
    return {'range': list(self.range), 'direction': self.direction}


SCORE = Scale((0.0, 1.0), 'higher is better')
MAP = Scale((0.0, 1.0), 'higher is worse')
KEYWORD = Scale((0.0, 1.0), 'higher is worse')
# One line below results.
RANGES = f'Scores are from {SCORE}; maps from {MAP}; p_misaligned from {KEYWORD}'

SCORES = {
  'plausibility': 'no visible mistakes: bodies, objects, text and light are possible',
  'alignment': 'the image shows what the prompt asks for',
  'aesthetics': 'the image is pleasant to look at',
  'overall': 'the image as a whole',
}
MAPS = {
  'implausibility': 'where the image shows what cannot be',
  'misalignment': 'where the image does not fit the prompt',
}
KEYWORDS = 'the probability that the image misses this word of the prompt'
