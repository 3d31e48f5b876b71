"""Mixes data sets: maps each position of the training stream to an example.

The stream is divided into blocks. Each data set has a fixed number of positions in
every block, in an order that is reshuffled for each block, and goes through its own
examples epoch by epoch. Both are computed from the position in O(1).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Int64

from rahf.errors import InputError

# Makes shares accurate to a tenth of a percent.
BLOCK = 1024


class Drawn(NamedTuple):
  """The example at a position of the stream.

  Attributes:
    source: index of the data set.
    epoch: number of completed passes over its examples.
    example: index among its examples.
  """

  source: Int64[tf.Tensor, '']
  epoch: Int64[tf.Tensor, '']
  example: Int64[tf.Tensor, '']


def shares(weights: Sequence[float]) -> Int64[np.ndarray, 'S']:
  """Returns each data set's number of positions in a block.

  Raises:
    InputError: a weight is so small that its data set would get none.
  """
  exact = np.asarray(weights, np.float64) / np.sum(weights) * BLOCK
  counts = np.floor(exact).astype(np.int64)
  # The remainder goes to the data sets that rounding reduced most.
  for source in np.argsort(counts - exact, kind='stable')[: BLOCK - counts.sum()]:
    counts[source] += 1
  if not counts.all():
    raise InputError(
      f'the weights {tuple(weights)} leave no examples of data set '
      f'{np.argmin(counts)} (counted from 0); its weight must be at least 1/{BLOCK} of '
      'their sum'
    )
  return counts


def draw(
  position: Int64[tf.Tensor, ''],
  counts: Int64[np.ndarray, 'S'],
  sizes: Int64[np.ndarray, 'S'],
  seed: int,
) -> Drawn:
  """Returns the example at a position of the stream.

  Args:
    counts: as returned by `shares`.
    sizes: number of examples of each data set.
    seed: of all orders.
  """
  source, position = _choose(position, counts, seed)
  size = tf.gather(tf.constant(sizes, tf.int64), source)
  epoch = position // size
  # A different key for each epoch of each data set.
  key = _key(seed, 1, epoch * len(counts) + source)
  example = tf.random.experimental.index_shuffle(position % size, key, size - 1)
  return Drawn(source, epoch, example)


def _choose(
  position: Int64[tf.Tensor, ''], counts: Int64[np.ndarray, 'S'], seed: int
) -> tuple[Int64[tf.Tensor, ''], Int64[tf.Tensor, '']]:
  """Returns the data set and the position in its own stream."""
  if len(counts) == 1:
    return tf.zeros([], tf.int64), position
  block = position // BLOCK
  slot = tf.random.experimental.index_shuffle(
    position % BLOCK, _key(seed, 2, block), tf.constant(BLOCK - 1, tf.int64)
  )
  ends = tf.constant(np.cumsum(counts), tf.int64)
  source = tf.searchsorted(ends, slot[None], side='right', out_type=tf.int64)[0]
  count = tf.gather(tf.constant(counts, tf.int64), source)
  first = tf.gather(ends, source) - count
  return source, block * count + slot - first


def _key(seed: int, purpose: int, number: Int64[tf.Tensor, '']) -> tf.Tensor:
  return tf.random.experimental.stateless_fold_in([seed, purpose], number)
