"""The task of Pick-a-Pic: which of two images is preferred, again and again.

Each round shows two images of a prompt. The preferred one stays and the other makes
room for the next of the prompt's images; after a tie, either stays, by chance. The task
ends when no image is left. An answer is {choice: left, right or tie, left, right},
where the last two are the positions of the images that were shown.
"""

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

from rahf.errors import InputError

CHOICES = ('left', 'right', 'tie')


def pair(
  count: int, seed: str, earlier: Sequence[Mapping[str, Any]]
) -> tuple[int, int] | None:
  """Returns which images are on the left and on the right; None after the last round.

  It depends on the arguments alone, so that a round looks the same after a restart.

  Args:
    count: number of images.
    seed: of the order of the images and of sides.
    earlier: the answers so far, in order.
  """
  chance = random.Random(hashlib.sha256(seed.encode()).digest())
  order = chance.sample(range(count), count)
  shown = order[:2]
  for number, answer in enumerate(earlier):
    stays = answer['choice']
    # Drawn in every round, so that an answer changes nothing but who stays.
    either = chance.choice(('left', 'right'))
    kept = answer[either if stays == 'tie' else stays]
    if number + 2 >= count:
      return None
    shown = [kept, order[number + 2]]
    chance.shuffle(shown)
  return shown[0], shown[1]


def check(value: Any, shown: tuple[int, int]) -> dict[str, Any]:
  """Returns an answer with the images that were shown.

  Raises:
    InputError: it is not left, right or tie, or is about other images.
  """
  if not isinstance(value, dict) or value.get('choice') not in CHOICES:
    raise InputError(f'choose one of {", ".join(CHOICES)}')
  if [value.get('left'), value.get('right')] != list(shown):
    raise InputError('the answer is about other images; load the page again')
  return {'choice': value['choice'], 'left': shown[0], 'right': shown[1]}
