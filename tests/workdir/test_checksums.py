"""A checksum depends on every bit, but not on the sharding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from rahf.runtime import sharding
from rahf.workdir.checksums import checksums

DTYPES = ('float32', 'bfloat16', 'int32', 'uint8', 'bool')


def make(dtype):
  values = np.random.default_rng(0).integers(0, 2, (6, 4, 8))
  return jnp.asarray(values, dtype)


@pytest.mark.parametrize('dtype', DTYPES)
def test_every_bit_counts(dtype):
  array = make(dtype)
  before = checksums({'a': array})['a']
  raw = np.asarray(array)
  bits = 1 if dtype == 'bool' else 8
  seen = {before}
  for position in (0, raw.nbytes // 2, raw.nbytes - 1):
    for bit in range(bits):
      changed = raw.copy()
      changed.view(np.uint8).reshape(-1)[position] ^= 1 << bit
      seen.add(checksums({'a': jnp.asarray(changed)})['a'])
  assert len(seen) == 1 + 3 * bits


def test_positions_count():
  array = make('int32')
  swapped = array.at[0, 0].set(array[1, 0]).at[1, 0].set(array[0, 0])
  sums = [checksums({'a': a})['a'] for a in (array, swapped, array.reshape(4, 6, 8))]
  assert sums[0] != sums[1]
  # A reshape keeps elements and order.
  assert sums[0] == sums[2]


def test_by_hand():
  """Two elements: the factors are 1, and 1 + 2 * 2654435769 modulo 2^32."""
  found = checksums({'a': np.array([5, 7], np.uint32), 'b': {'c': np.int32(-1)}})
  assert found == {
    'a': (5 + 7 * (1 + 2 * 2654435769)) % 2**32,
    'b/c': 2**32 - 1,
  }


def test_sharding_does_not_matter():
  mesh = sharding.make_mesh(dict(data=2, fsdp=2, tensor=2))
  array = make('float32')
  spread = jax.device_put(array, NamedSharding(mesh, PartitionSpec('fsdp', 'tensor')))
  assert checksums({'a': spread}) == checksums({'a': array})
