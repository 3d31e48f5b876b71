"""The terms of a reward: scores, and penalties made from heatmaps and words.

Axis letters: N images, S image size of the model.
"""

import math
import numbers
from collections.abc import Mapping
from typing import Any

from jaxtyping import Float

from rahf.data import schema
from rahf.errors import InputError
from rahf.inference.feedback import Feedback
from rahf.inference.output_ranges import ModelOutputs, Scale

# Terms where higher is worse; the first ones reduce a heatmap to one number.
MAP_TERMS = {
  f'{name}_{reduction}': (name, reduction)
  for name in schema.MAPS
  for reduction in ('mean', 'peak')
}
WORDS = 'misaligned_words'
PENALTIES = (*MAP_TERMS, WORDS)


def scales_of(outputs: ModelOutputs) -> dict[str, Scale]:
  """Returns range and direction of each term of a model's rewards, by name."""
  maps = {
    term: outputs.maps[name].scale
    for term, (name, _) in MAP_TERMS.items()
    if name in outputs.maps
  }
  words = {WORDS: outputs.keywords.scale} if outputs.keywords else {}
  return {name: one.scale for name, one in outputs.scores.items()} | maps | words


def check_weights(
  weights: Mapping[str, float], scales: Mapping[str, Scale]
) -> dict[str, float]:
  """Checks names and values of weights and returns them.

  Args:
    scales: of the terms that the model has, by name.

  Raises:
    InputError: a name is unknown, or a value is not finite or rewards a penalty.
  """
  check_numbers(weights)
  names = ', '.join(scales)
  if not weights:
    raise InputError(f'weights is empty; give one or more of {names}')
  for name, weight in weights.items():
    if name not in scales:
      raise InputError(f'weights: {name!r} is not one of {names}')
    if scales[name].direction == 'higher is worse' and weight > 0:
      raise InputError(
        f'weights: {name} = {weight} would reward a penalty; give it a negative weight'
      )
  return dict(weights)


def check_numbers(weights: Mapping[str, float]) -> None:
  """Raises InputError unless weights is a mapping to finite numbers."""
  if not isinstance(weights, Mapping):
    raise InputError(
      f"weights = {weights!r} is not a dict of numbers; give, e.g., {{'overall': 1}}"
    )
  for name, weight in weights.items():
    if not isinstance(weight, numbers.Real) or not math.isfinite(weight):
      raise InputError(f'weights: {name} = {weight!r} is not a finite number')


def map_terms(maps: Mapping[str, Float[Any, 'N S S']]) -> dict[str, Float[Any, 'N']]:
  """Returns the mean and peak of each map by name, for NumPy or JAX arrays."""
  reduce = {'mean': lambda m: m.mean((1, 2)), 'peak': lambda m: m.max((1, 2))}
  return {
    term: reduce[how](maps[name])
    for term, (name, how) in MAP_TERMS.items()
    if name in maps
  }


def mean_p_misaligned(feedback: Feedback) -> float:
  """Returns the mean probability over words that were not truncated."""
  values = [p for _, p in feedback.keywords if not math.isnan(p)]
  return sum(values) / len(values) if values else 0.0
