"""Mixtures: which data set each position in the training stream comes from.

The stream is cut into blocks. In each block every data set has the same number of
positions, its share, in an order that is shuffled anew; and goes through its own
examples, epoch by epoch, at its own pace. Like the order within one data set, all this
is computed from the position, in O(1).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Int64

from rahf.errors import InputError

# Shares are met to a tenth of a percent.
BLOCK = 1024


class Drawn(NamedTuple):
  """What stands at a position of the stream.

  Attributes:
    source: number of the data set.
    epoch: how many times all its examples came before.
    example: number among its examples.
  """

  source: Int64[tf.Tensor, '']
  epoch: Int64[tf.Tensor, '']
  example: Int64[tf.Tensor, '']


def shares(weights: Sequence[float]) -> Int64[np.ndarray, 'S']:
  """Returns how many of BLOCK positions each data set has.

  Raises:
    InputError: a weight is so small that its data set would have none.
  """
  exact = np.asarray(weights, np.float64) / np.sum(weights) * BLOCK
  counts = np.floor(exact).astype(np.int64)
  # What is left goes to those that lost most.
  for source in np.argsort(counts - exact, kind='stable')[: BLOCK - counts.sum()]:
    counts[source] += 1
  if not counts.all():
    raise InputError(
      f'the weights {tuple(weights)} leave nothing of number {np.argmin(counts)}; '
      f'it must have 1/{BLOCK} of their sum at least'
    )
  return counts


def draw(
  position: Int64[tf.Tensor, ''],
  counts: Int64[np.ndarray, 'S'],
  sizes: Int64[np.ndarray, 'S'],
  seed: int,
) -> Drawn:
  """Returns what stands at a position.

  Args:
    counts: of `shares`.
    sizes: how many examples each data set has.
    seed: of all orders.
  """
  source, position = _choose(position, counts, seed)
  size = tf.gather(tf.constant(sizes, tf.int64), source)
  epoch = position // size
  # A number of its own for each epoch of each data set.
  key = _key(seed, 1, epoch * len(counts) + source)
  example = tf.random.experimental.index_shuffle(position % size, key, size - 1)
  return Drawn(source, epoch, example)


def _choose(
  position: Int64[tf.Tensor, ''], counts: Int64[np.ndarray, 'S'], seed: int
) -> tuple[Int64[tf.Tensor, ''], Int64[tf.Tensor, '']]:
  """Returns the data set, and the position in its own stream."""
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
