"""The parts of a RAHF, by the names of their modules."""

import re

# Part -> pattern of its modules' names; the rest comes last.
PARTS = {
  'ViT': r'\bvit\b',
  'T5 encoder': r't5\.encode',
  'heatmap heads': 'heatmap_head',
  'score heads': 'score_head',
  'T5 decoder': r't5\.decode',
  'projection of the image': 'image_projection',
  'others': '',
}


def part_of(scope: str) -> str:
  """Returns the part of the model that an operation's scope names."""
  return next(name for name, pattern in PARTS.items() if re.search(pattern, scope))
