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
