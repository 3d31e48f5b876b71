"""Weighted sums of scores, such as 0.7*alignment + 0.3*plausibility."""

import math
import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from rahf.errors import InputError

_TERM = re.compile(
  r'\s*(?P<sign>[-+]?)\s*'
  r'(?:(?P<weight>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*\*\s*)?'
  r'(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?)\s*(?![^-+])'
)


class Term(NamedTuple):
  """One score and its weight, which is neither 0 nor infinite."""

  weight: float
  score: str

  def __str__(self) -> str:
    return f'{self.weight:g}*{self.score}'


class Expression(NamedTuple):
  """A weighted sum of different scores.

  Attributes:
    text: as it was given.
    terms: at least one.
  """

  text: str
  terms: tuple[Term, ...]

  def parts(self, scores: Mapping[str, float]) -> list[float]:
    """Returns weight times score of each term."""
    return [term.weight * scores[term.score] for term in self.terms]

  def value(self, scores: Mapping[str, float]) -> float:
    """Returns the sum for one image; infinite or NaN if it is too large for a float."""
    return sum(self.parts(scores))

  def finite_value(self, scores: Mapping[str, float]) -> float:
    """Returns the sum for one image.

    Raises:
      InputError: it is not finite.
    """
    if not math.isfinite(value := self.value(scores)):
      raise InputError(
        f"{self.text} is {value}: the model's scores are not finite; it is damaged, or "
        'its training diverged'
      )
    return value


def parse(text: str, known: Collection[str], name: str = '--by') -> Expression:
  """Parses the name of a score, or a sum of scores with weights.

  A term is a score, or a number, `*` and a score; terms are joined by + or -.

  Args:
    known: names of the scores that exist, for example alignment or pick.similarity.
    name: of the flag, for errors.

  Raises:
    InputError: it is something else, has an unknown score or one twice, or a weight
      that is 0 or too large.
  """
  where, terms, position = f'{name}={text}', [], 0
  while position < len(text) or not terms:
    found = _TERM.match(text, position)
    if not found or (terms and not found['sign']):
      raise InputError(
        f'{where}: {text[position:].strip()!r:.60} is not a score or a weighted sum '
        'such as overall or 0.7*alignment+0.3*plausibility'
      )
    score = found['name']
    if score not in known:
      raise InputError(f'{where}: {score!r} is not one of {", ".join(known)}')
    if any(term.score == score for term in terms):
      raise InputError(f'{where}: {score} occurs twice; add up its weights')
    weight = float(found['weight'] or 1)
    if not weight or math.isinf(weight):
      raise InputError(f'{where}: the weight of {score} is {found["weight"]}')
    terms.append(Term(-weight if found['sign'] == '-' else weight, score))
    position = found.end()
  return Expression(text, tuple(terms))
