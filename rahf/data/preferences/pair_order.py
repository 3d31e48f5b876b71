"""The order of preference pairs in training.

A batch's rows are divided among lanes, and so are the row groups of the files. Each
lane reads its row groups one after another, in an order that is shuffled in every
epoch, as are the pairs within. A lane holds one row group in memory, and a process
reads only the lanes of its own rows.

Every position follows from (seed, lane, position) alone, so that training resumes at
any step, with any number of processes, with exactly the pairs it would have seen.
"""

import dataclasses
import functools
import heapq

import numpy as np
from jaxtyping import Int64

from rahf.errors import InputError

# Keys of the random streams.
_DEAL, _GROUPS, _PAIRS = range(3)


@dataclasses.dataclass(frozen=True)
class Place:
  """A pair: its row group, and its row in it."""

  group: int
  row: int


@dataclasses.dataclass(frozen=True, eq=False)
class Lane:
  """One lane's endless order.

  Attributes:
    number: of the lane.
    groups: its row groups.
    sizes: the number of pairs of each of them.
    seed: of all orders.
  """

  number: int
  groups: Int64[np.ndarray, 'G']
  sizes: Int64[np.ndarray, 'G']
  seed: int

  def __len__(self) -> int:
    """The number of pairs of an epoch."""
    return int(self.sizes.sum())

  def place(self, position: int) -> Place:
    """Returns the pair at a position of the endless order."""
    epoch, position = divmod(position, len(self))
    order, ends = self._epoch(epoch)
    index = int(np.searchsorted(ends, position, side='right'))
    chosen = order[index]
    size, group = int(self.sizes[chosen]), int(self.groups[chosen])
    row = self._rows(epoch, group, size)[position - int(ends[index]) + size]
    return Place(group, int(row))

  @functools.lru_cache(maxsize=2)  # noqa: B019 - a lane lives as long as its run.
  def _epoch(self, epoch: int) -> tuple[Int64[np.ndarray, 'G'], Int64[np.ndarray, 'G']]:
    """Returns the order of the row groups, and the positions at which they end."""
    random = np.random.default_rng([self.seed, _GROUPS, self.number, epoch])
    order = random.permutation(len(self.groups))
    return order, np.cumsum(self.sizes[order])

  @functools.lru_cache(maxsize=2)  # noqa: B019
  def _rows(self, epoch: int, group: int, size: int) -> Int64[np.ndarray, 'n']:
    return np.random.default_rng([self.seed, _PAIRS, epoch, group]).permutation(size)


def check_lanes(lanes: int, batch_size: int, setting: str) -> None:
  """Raises InputError if the lanes do not divide the batch size of this setting."""
  if batch_size % lanes:
    raise InputError(
      f'config.pairs.lanes = {lanes} does not divide {setting} = {batch_size}; change '
      'one of them'
    )


def make_lanes(sizes: Int64[np.ndarray, 'G'], lanes: int, seed: int) -> list[Lane]:
  """Deals row groups to lanes, so that these have about equally many pairs.

  Lanes that are shorter by a row group repeat their pairs a little more often.

  Args:
    sizes: the number of pairs of each row group.

  Raises:
    InputError: there are fewer row groups with pairs than lanes.
  """
  filled = np.flatnonzero(sizes)
  if len(filled) < lanes:
    raise InputError(
      f'config.pairs.lanes = {lanes}, but the files have only {len(filled)} row groups '
      f'of pairs to train on; set it to at most {len(filled)}'
    )
  shuffled = np.random.default_rng([seed, _DEAL]).permutation(filled)
  largest_first = shuffled[np.argsort(-sizes[shuffled], kind='stable')]
  dealt: list[list[int]] = [[] for _ in range(lanes)]
  totals = [(0, lane) for lane in range(lanes)]
  for group in largest_first:
    total, lane = heapq.heappop(totals)
    dealt[lane].append(group)
    heapq.heappush(totals, (total + int(sizes[group]), lane))
  return [
    Lane(number, np.array(groups), sizes[groups], seed)
    for number, groups in enumerate(dealt)
  ]
