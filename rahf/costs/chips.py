"""Peak rates and memory of accelerators, from their vendors' data sheets."""

from typing import NamedTuple

GB = 10**9
GIB = 2**30


class Chip(NamedTuple):
  """Peak rates of one chip, meaning one JAX device.

  Attributes:
    memory: bytes of high-bandwidth memory.
    flops: bfloat16 operations per second of the matrix units.
    bandwidth: bytes per second between memory and compute units.
    interconnect: bytes per second to other chips, over all links.
  """

  memory: int
  flops: float
  bandwidth: float
  interconnect: float


# By JAX's `device_kind`. TPU: cloud.google.com/tpu/docs, system architecture; GPU:
# NVIDIA's data sheets for the SXM modules, rates without sparsity.
CHIPS = {
  'TPU v5 lite': Chip(16 * GIB, 197e12, 819 * GB, 200 * GB),
  'TPU v5': Chip(95 * GIB, 459e12, 2765 * GB, 600 * GB),
  'TPU v6 lite': Chip(32 * GIB, 918e12, 1640 * GB, 448 * GB),
  'NVIDIA A100-SXM4-80GB': Chip(80 * GIB, 312e12, 2039 * GB, 600 * GB),
  'NVIDIA H100 80GB HBM3': Chip(80 * GIB, 989e12, 3350 * GB, 900 * GB),
  'NVIDIA H200': Chip(141 * GB, 989e12, 4800 * GB, 900 * GB),
}
