"""Draws a subset of images whose attributes have given shares (paper section 3.3).

Shares of several questions are met at once: how many images have each combination of
answers is a small integer programme, whose solution is as near as possible to
independent questions. Images of a combination are then drawn at random.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.optimize
from jaxtyping import Float, Int

from rahf.data.attributes.table import UNKNOWN, Attributes
from rahf.errors import InputError

EVEN = 'even'
Quotas = Mapping[str, Mapping[str, float]]
"""Question -> answer -> share; the shares of a question add up to 1."""


def parse_quotas(given: Sequence[str], attributes: Attributes) -> dict:
  """Reads quotas such as 'category=even' and 'photorealistic=yes:0.8,no:0.2'.

  Shares need not add up to 1; answers that are not named get none.

  Raises:
    InputError: a question or an answer is unknown, or a share is not a number above 0.
  """
  quotas = {}
  for text in given:
    name, equals, shares = text.partition('=')
    usage = 'give NAME=even or NAME=ANSWER:SHARE,…'
    if not equals:
      raise InputError(f'--quota {text!r:.80} has no shares; {usage}')
    if name not in attributes.answers:
      raise InputError(
        f'--quota {text!r:.80}: {name!r:.80} is not an attribute of the images; '
        f'{usage} for one of {", ".join(attributes.answers)}'
      )
    if name in quotas:
      raise InputError(f'--quota: {name} stands twice')
    known = sorted({*attributes.answers[name]} - {UNKNOWN})
    if not known:
      raise InputError(f'--quota {text!r:.80}: {name} is unknown for all images')
    if shares == EVEN:
      quotas[name] = dict.fromkeys(known, 1 / len(known))
    else:
      quotas[name] = _shares(text, shares, known)
  return quotas


def _shares(text: str, shares: str, known: Sequence[str]) -> dict[str, float]:
  found = {}
  for part in shares.split(','):
    answer, colon, number = part.rpartition(':')
    try:
      share = float(number)
    except ValueError:
      share = 0
    if not colon or not 0 < share < np.inf or answer in found:
      raise InputError(
        f'--quota {text!r:.80}: {part!r:.80} is not ANSWER:SHARE with a share above 0, '
        'each answer once'
      )
    if answer not in known:
      raise InputError(
        f'--quota {text!r:.80}: no image has the answer {answer!r:.80}; there are '
        f'{", ".join(known)}'
      )
    found[answer] = share
  total = sum(found.values())
  return {answer: share / total for answer, share in found.items()}


def candidates(
  attributes: Attributes, quotas: Quotas, confidence: float
) -> Int[np.ndarray, 'M']:
  """Returns the images that may be drawn.

  Args:
    confidence: the least probability of the answers to all questions with quotas.
  """
  usable = np.ones(len(attributes.uids), bool)
  for name, shares in quotas.items():
    usable &= np.isin(attributes.answers[name], list(shares))
    usable &= attributes.confidences[name] >= confidence
  return np.flatnonzero(usable)


def sample(
  attributes: Attributes,
  quotas: Quotas,
  count: int,
  *,
  seed: int = 0,
  confidence: float = 0.0,
) -> Int[np.ndarray, 'count']:
  """Draws images with these shares; returns their rows in order.

  Numbers of images are rounded to add up to `count`.

  Raises:
    InputError: there are too few images; says of which answers, and how many.
  """
  rows = candidates(attributes, quotas, confidence)
  combinations = [*itertools.product(*(quotas[name] for name in quotas))]
  keys = list(zip(*(attributes.answers[name] for name in quotas), strict=True))
  members = {one: [row for row in rows if keys[row] == one] for one in combinations}
  available = np.array([len(members[one]) for one in combinations])
  targets = {name: rounded(shares, count) for name, shares in quotas.items()}
  numbers = _allocate(combinations, available, quotas, targets, count)
  if numbers is None:
    raise _too_few(combinations, available, targets, count, confidence)
  # Every combination has a stream of its own, whatever the others are.
  drawn = [
    np.random.default_rng([seed, number]).permutation(members[one])[:size]
    for number, (one, size) in enumerate(zip(combinations, numbers, strict=True))
  ]
  return np.sort(np.concatenate(drawn)).astype(int)


def rounded(shares: Mapping[str, float], count: int) -> dict[str, int]:
  """Returns whole numbers in proportion to shares that add up to `count`.

  What rounding down leaves goes to the largest remainders.
  """
  exact = count * np.array([*shares.values()])
  numbers = np.floor(exact + 1e-9).astype(int)
  for place in np.argsort(numbers - exact, kind='stable')[: count - numbers.sum()]:
    numbers[place] += 1
  return dict(zip(shares, numbers.tolist(), strict=True))


def _allocate(
  combinations: Sequence[tuple[str, ...]],
  available: Int[np.ndarray, 'C'],
  quotas: Quotas,
  targets: Mapping[str, Mapping[str, int]],
  count: int,
) -> Int[np.ndarray, 'C'] | None:
  """Returns the number of images of each combination; None if there are too few.

  Minimises the sum of |number - number if the questions were independent|.
  """
  size = len(combinations)
  ideal = np.array(
    [
      count * np.prod([quotas[n][a] for n, a in zip(quotas, one, strict=True)])
      for one in combinations
    ]
  )
  marginals, wanted = _marginals(combinations, targets)
  nothing, identity = np.zeros((len(wanted), size)), np.eye(size)
  # Variables: the numbers, then at least their distances from the ideal.
  found = scipy.optimize.milp(
    np.concatenate([np.zeros(size), np.ones(size)]),
    integrality=np.concatenate([np.ones(size), np.zeros(size)]),
    bounds=scipy.optimize.Bounds(0, np.concatenate([available, np.full(size, np.inf)])),
    constraints=[
      scipy.optimize.LinearConstraint(np.hstack([marginals, nothing]), wanted, wanted),
      scipy.optimize.LinearConstraint(np.hstack([identity, -identity]), ub=ideal),
      scipy.optimize.LinearConstraint(np.hstack([-identity, -identity]), ub=-ideal),
    ],
  )
  return np.round(found.x[:size]).astype(int) if found.success else None


def _marginals(
  combinations: Sequence[tuple[str, ...]], targets: Mapping[str, Mapping[str, int]]
) -> tuple[Float[np.ndarray, 'A C'], Int[np.ndarray, 'A']]:
  """Returns which combinations have each answer, and how many images must."""
  answers = [(place, a) for place, n in enumerate(targets) for a in targets[n]]
  rows = [[float(one[place] == a) for one in combinations] for place, a in answers]
  return np.array(rows), np.array([n for t in targets.values() for n in t.values()])


def _too_few(
  combinations: Sequence[tuple[str, ...]],
  available: Int[np.ndarray, 'C'],
  targets: Mapping[str, Mapping[str, int]],
  count: int,
  confidence: float,
) -> InputError:
  """Returns the error that says what is missing, and how many could be drawn."""
  marginals, wanted = _marginals(combinations, targets)
  size = len(combinations)
  missing = np.maximum(wanted - (marginals @ available).astype(int), 0)
  together = not missing.any()
  if together:
    missing = _missing_together(marginals, available, wanted)
  names = [f'{name}: {answer}' for name in targets for answer in targets[name]]
  lacks = ', '.join(
    f'{name} lacks {lack:,} of {number:,}'
    for name, lack, number in zip(names, missing, wanted, strict=True)
    if lack
  )
  if together:
    lacks = f'there are enough of each answer, but not together: {lacks}'
  # The largest share of the quotas that can be met.
  most = scipy.optimize.linprog(
    np.concatenate([np.zeros(size), [-1]]),
    A_eq=np.hstack([marginals, -wanted[:, None] / count]),
    b_eq=np.zeros(len(wanted)),
    bounds=[*((0, number) for number in available), (0, None)],
  )
  sure = f' with a confidence of {confidence:g} or more' if confidence else ''
  possible = min(int(most.x[-1] + 1e-6), count - 1)
  return InputError(
    f'{available.sum():,} images{sure} cannot meet the quotas for {count:,}: {lacks}. '
    f'About {possible:,} could be drawn; lower --count or --confidence, or change the '
    'quotas'
  )


def _missing_together(
  marginals: Float[np.ndarray, 'A C'],
  available: Int[np.ndarray, 'C'],
  wanted: Int[np.ndarray, 'A'],
) -> Int[np.ndarray, 'A']:
  """Returns how many images of each answer are missing at least, in sum."""
  size, slack = len(available), np.eye(len(wanted))
  least = scipy.optimize.milp(
    np.concatenate([np.zeros(size), np.ones(len(wanted))]),
    integrality=np.ones(size + len(wanted)),
    bounds=scipy.optimize.Bounds(0, np.concatenate([available, wanted])),
    constraints=scipy.optimize.LinearConstraint(
      np.hstack([marginals, slack]), wanted, wanted
    ),
  )
  return np.round(least.x[size:]).astype(int)
