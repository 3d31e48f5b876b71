"""What is wrong with pairs: the same kinds in training and in every evaluation."""

import collections
import enum
from collections.abc import Callable, Iterable, Mapping

from absl import logging

# Damaged pairs are named in warnings, up to this number.
NAMED = 20


class Problem(enum.IntEnum):
  """What is wrong with a pair; only those with NONE or TRUNCATED are used.

  Attributes:
    NONE: nothing.
    TRUNCATED: the model reads only the beginning of its prompt.
    UNLABELLED: has_label is False, and such pairs are left out on purpose.
    LABELS: its labels are invalid, or contradict best_image_uid.
    UNREADABLE: an image is missing or cannot be decoded.
    NOT_FINITE: the model's score of an image is NaN or infinite.
  """

  NONE = 0
  TRUNCATED = 1
  UNLABELLED = 2
  LABELS = 3
  UNREADABLE = 4
  NOT_FINITE = 5

  @property
  def damaged(self) -> bool:
    """Whether such a pair would be used if nothing were wrong with it."""
    return self >= Problem.LABELS


_WORDS = {
  Problem.UNLABELLED: 'with has_label False',
  Problem.LABELS: 'with invalid labels',
  Problem.UNREADABLE: 'with an unreadable image',
  Problem.NOT_FINITE: 'with a score that is not finite',
}


class PairTally:
  """Collects what is wrong with the pairs of a split; each pair counts once.

  A damaged pair is named in a warning when it is met first.

  Args:
    name: gives the name of the pair at a position of the split, for the warnings.
  """

  def __init__(self, name: Callable[[int], str]):
    self._name = name
    self._found: dict[int, Problem] = {}
    self._named = 0

  def add(self, position: int, problem: Problem, reason: str = '') -> None:
    """Adds what is wrong with a pair of the split, and why in words."""
    if problem == Problem.NONE or position in self._found:
      return
    self._found[position] = problem
    if problem.damaged and self._named < NAMED:
      self._named += 1
      more = '; further ones are not named' if self._named == NAMED else ''
      logging.warning('Dropped pair %s: %s%s', self._name(position), reason, more)

  @property
  def counts(self) -> collections.Counter[Problem]:
    """The number of pairs by what is wrong with them."""
    return count(self._found.values())


def count(problems: Iterable[int]) -> collections.Counter[Problem]:
  """Returns the number of pairs by what is wrong with them, given that of each."""
  return collections.Counter(map(Problem, problems))


def damaged(counts: Mapping[Problem, int]) -> int:
  """Returns the number of damaged pairs."""
  return sum(number for problem, number in counts.items() if problem.damaged)


def describe(counts: Mapping[Problem, int]) -> list[str]:
  """Returns a sentence for the pairs that are not used, and one for long prompts."""
  found = []
  kinds = [
    f'{counts[problem]:,} {words}'
    for problem, words in _WORDS.items()
    if counts.get(problem)
  ]
  if kinds:
    found.append(f'Pairs that were not used: {", ".join(kinds)}.')
  if number := counts.get(Problem.TRUNCATED):
    found.append(
      f'Pairs of whose prompt the model reads only the beginning: {number:,}.'
    )
  return found
