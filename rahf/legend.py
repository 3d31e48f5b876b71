"""What each output means, its range and direction, in words for people."""

SCORES = {
  'plausibility': 'no visible mistakes: bodies, objects, text and light are possible',
  'alignment': 'the image shows what the prompt asks for',
  'aesthetics': 'the image is pleasant to look at',
  'overall': 'the image as a whole',
}
SCORE_RANGE = (0.0, 1.0)
SCORE_DIRECTION = 'higher is better'
MAPS = {
  'implausibility': 'where the image shows what cannot be',
  'misalignment': 'where the image does not fit the prompt',
}
MAP_RANGE = (0.0, 1.0)
MAP_DIRECTION = 'higher is worse'
KEYWORDS = 'the probability that the image misses this word of the prompt'
KEYWORD_RANGE = (0.0, 1.0)
KEYWORD_DIRECTION = 'higher is worse'


def _range(limits: tuple[float, float], direction: str) -> str:
  return '[{:g}, {:g}], '.format(*limits) + direction


# One line below results.
RANGES = (
  f'Scores are in {_range(SCORE_RANGE, SCORE_DIRECTION)}; '
  f'maps in {_range(MAP_RANGE, MAP_DIRECTION)}; '
  f'p_misaligned in {_range(KEYWORD_RANGE, KEYWORD_DIRECTION)}'
)
