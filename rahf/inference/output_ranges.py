"""Meaning, range and direction of each output, as text for people."""

from typing import Any, NamedTuple


class Scale(NamedTuple):
  """Range and direction of one kind of output.

  Attributes:
    range: lowest and highest value.
    direction: which end is better.
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
# The line below results.
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
