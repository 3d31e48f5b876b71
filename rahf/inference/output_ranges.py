"""Meaning, range and direction of each output, as text for people."""

import dataclasses
from collections.abc import Mapping
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


class Output(NamedTuple):
  """What one number, map or word probability of a model means, and its scale."""

  meaning: str
  scale: Scale

  def __str__(self) -> str:
    return f'{self.meaning}; {self.scale}'

  def to_dict(self) -> dict[str, Any]:
    """Returns the fields for JSON."""
    return {'meaning': self.meaning, **self.scale.to_dict()}


@dataclasses.dataclass(frozen=True)
class ModelOutputs:
  """Everything that a model says about an image; what it does not say is absent.

  Attributes:
    scores: by name.
    main: the name of the score that stands for the image as a whole.
    maps: heatmaps by name.
    keywords: the probability of each word, p_misaligned; None if words are not judged.
  """

  scores: Mapping[str, Output]
  main: str
  maps: Mapping[str, Output] = dataclasses.field(default_factory=dict)
  keywords: Output | None = None

  @property
  def score_ranges(self) -> str:
    """Range and direction of the scores."""
    return _scales(self.scores)

  @property
  def ranges(self) -> str:
    """Range and direction of all outputs, as the line below results."""
    parts = [f'Scores are from {self.score_ranges}']
    if self.maps:
      parts.append(f'maps from {_scales(self.maps)}')
    if self.keywords:
      parts.append(f'p_misaligned from {self.keywords.scale}')
    return '; '.join(parts)

  def to_dict(self) -> dict[str, Any]:
    """Returns meaning, range and direction of each output, for JSON."""
    found = {'scores': {name: one.to_dict() for name, one in self.scores.items()}}
    if self.maps:
      found['maps'] = {name: one.to_dict() for name, one in self.maps.items()}
    if self.keywords:
      found['p_misaligned'] = self.keywords.to_dict()
    return found


def _scales(outputs: Mapping[str, Output]) -> str:
  return ' or '.join(dict.fromkeys(str(one.scale) for one in outputs.values()))


SCORE = Scale((0.0, 1.0), 'higher is better')
MAP = Scale((0.0, 1.0), 'higher is worse')
KEYWORD = Scale((0.0, 1.0), 'higher is worse')

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
RAHF_OUTPUTS = ModelOutputs(
  scores={name: Output(meaning, SCORE) for name, meaning in SCORES.items()},
  main='overall',
  maps={name: Output(meaning, MAP) for name, meaning in MAPS.items()},
  keywords=Output(KEYWORDS, KEYWORD),
)

# The score of a CLIP; PickScore's published scores are in this unit.
SIMILARITY = 'similarity'


def clip_outputs(scale: float) -> ModelOutputs:
  """Returns the outputs of a CLIP: its similarity of image and prompt.

  Args:
    scale: the exponential of its `logit_scale`.
  """
  meaning = (
    'how well the image fits the prompt, of PickScore how much people prefer it: the '
    f'cosine of their embeddings, times {scale:g}'
  )
  similarity = Output(meaning, Scale((-scale, scale), 'higher is better'))
  return ModelOutputs({SIMILARITY: similarity}, SIMILARITY)
