"""Checksums of arrays, the same on any mesh.

Storage and decompression may return wrong numbers without an error. Checksums are
computed on the device, so they cover every stage in between.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from rahf.runtime.tree import by_path


def checksums(tree: Any) -> dict[str, int]:
  """Returns a checksum for each array, by path, that depends on every bit.

  Changing one element always changes it; any other change is missed with a chance of
  2^-32. It does not depend on how an array is sharded.

  Args:
    tree: arrays with 8, 16 or 32 bits per element.
  """
  # Sequentially: many small programs that reduce over devices may deadlock if they run
  # at once. Scalars are on every device, so that each process can read its copy.
  return {
    path: int(np.asarray(_checksum(leaf).addressable_data(0)))
    for path, leaf in by_path(tree).items()
  }


@jax.jit
def _checksum(array: Array) -> UInt32[Array, '']:
  """Sums the elements' bits modulo 2^32, each times an odd factor of its position.

  Integer sums are exact in any order, and multiplying by an odd factor loses no bit.
  """
  if array.dtype == jnp.bool_:
    array = array.astype(jnp.uint8)
  width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[array.dtype.itemsize]
  bits = jax.lax.bitcast_convert_type(array, width).astype(jnp.uint32)
  position = jnp.zeros(array.shape, jnp.uint32)
  for axis, size in enumerate(array.shape):
    along = jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    position = position * jnp.uint32(size) + along
  # The multiplier makes the factors of neighbours differ in all bits.
  factor = position * jnp.uint32(2654435769) * jnp.uint32(2) + jnp.uint32(1)
  return jnp.sum(bits * factor, dtype=jnp.uint32)
