"""The task of table 5 of the paper: which of two images is better, in five steps.

The questions are those of `python -m rahf.improve study make`, which draws sides,
repeats and identical pairs; an answer is {choice: one of study.ANSWERS}.
"""

from typing import Any

from rahf.errors import InputError
from rahf.learning.study import ANSWERS


def check(value: Any) -> dict[str, str]:
  """Returns an answer.

  Raises:
    InputError: it is not one of the five.
  """
  choice = value.get('choice') if isinstance(value, dict) else None
  if not isinstance(choice, str) or choice not in ANSWERS:
    raise InputError(f'choose one of {", ".join(ANSWERS)}')
  return {'choice': choice}
