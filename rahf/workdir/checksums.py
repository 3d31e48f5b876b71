"""Checksums of arrays, the same on any mesh.

Storage and decompression may hand back other numbers without an error. A checksum is
computed where the arrays are, so it covers everything in between.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from rahf.runtime.tree import by_path


def checksums(tree: Any) -> dict[str, int]:
  """Returns a number for each array, by path, that depends on every bit of it.

  A change of one element always changes it, other changes but with a chance of 2^-32.
  It is the same however an array is sharded.

  Args:
    tree: arrays of 8, 16 or 32 bits an element.
  """
  # One after the other: many small programs at once that add over devices may lock each
  # other out. Scalars are on every device, also where other processes have the rest.
  return {
    path: int(np.asarray(_checksum(leaf).addressable_data(0)))
    for path, leaf in by_path(tree).items()
  }


@jax.jit
def _checksum(array: Array) -> UInt32[Array, '']:
  """Sums the elements' bits modulo 2^32, each times an odd number of its place.

  Integers are summed exactly in any order. An odd factor loses no bit.
  """
  if array.dtype == jnp.bool_:
    array = array.astype(jnp.uint8)
  width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[array.dtype.itemsize]
  bits = jax.lax.bitcast_convert_type(array, width).astype(jnp.uint32)
  place = jnp.zeros(array.shape, jnp.uint32)
  for axis, size in enumerate(array.shape):
    along = jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    place = place * jnp.uint32(size) + along
  # Neighbours' factors should differ in all bits, not in the lowest alone.
  factor = place * jnp.uint32(2654435769) * jnp.uint32(2) + jnp.uint32(1)
  return jnp.sum(bits * factor, dtype=jnp.uint32)
