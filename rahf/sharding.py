"""The mesh, and the one table from logical axes to its axes."""

import math
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rahf.errors import InputError

AXES = ('data', 'fsdp', 'tensor')
BATCH_AXES = ('data', 'fsdp')

LOGICAL_AXIS_RULES = (
  ('batch', BATCH_AXES),
  ('embed', 'fsdp'),
  ('conv_in', 'fsdp'),
  ('vocab', 'tensor'),
  ('heads', 'tensor'),
  ('joined_kv', 'tensor'),
  ('mlp', 'tensor'),
  ('conv_out', 'tensor'),
)


def make_mesh(sizes, devices: list[jax.Device] | None = None) -> Mesh:
  """Arranges devices as data x fsdp x tensor.

  Args:
    sizes: mapping with data, fsdp and tensor; at most one is -1 (the rest).
    devices: all devices of the process group unless given.

  Raises:
    InputError: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  shape = [sizes[axis] for axis in AXES]
  named = ', '.join(f'{axis}={size}' for axis, size in zip(AXES, shape, strict=True))
  if shape.count(-1) > 1 or any(size < 1 and size != -1 for size in shape):
    raise InputError(
      f'config.mesh has {named}: sizes are positive, and at most one is -1'
    )
  if -1 in shape:
    rest = math.prod(size for size in shape if size != -1)
    shape[shape.index(-1)] = len(devices) // rest
  if math.prod(shape) != len(devices):
    raise InputError(
      f'config.mesh has {named}, which does not multiply to the {len(devices)} '
      'devices; change config.mesh.data, .fsdp or .tensor'
    )
  return Mesh(np.reshape(devices, shape), AXES, axis_types=(AxisType.Auto,) * 3)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Splits the leading axis of every array of a batch."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def check_batch_size(field: str, size: int, mesh: Mesh, accumulate: int = 1) -> None:
  """Raises InputError unless every device gets the same share of a micro-batch."""
  shards = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
  if size < 1 or size % (shards * accumulate):
    micro = f' x {accumulate} micro-batches' if accumulate > 1 else ''
    raise InputError(
      f'{field} = {size} is not a positive multiple of {shards * accumulate} '
      f'({shards} data shards of the mesh{micro}); change it or config.mesh'
    )


def parameter_shardings(boxed_params: Any, mesh: Mesh) -> Any:
  """Maps each parameter's logical axes to a sharding.

  Args:
    boxed_params: tree of shapes with their logical axes, from `jax.eval_shape`.

  Raises:
    InputError: a mesh axis does not divide the parameter axis that it shards.
  """
  specs = nn.logical_to_mesh(nn.get_partition_spec(boxed_params), LOGICAL_AXIS_RULES)

  def sharding(path, shape, spec):
    for size, axis in zip(shape.shape, spec, strict=False):
      if axis is not None and size % mesh.shape[axis]:
        raise InputError(
          f'the mesh axis {axis!r} of size {mesh.shape[axis]} does not divide a '
          f'dimension of {jax.tree_util.keystr(path, simple=True, separator="/")} '
          f'{shape.shape}; change config.mesh.{axis} or the size in config.model'
        )
    return NamedSharding(mesh, spec)

  return jax.tree_util.tree_map_with_path(sharding, nn.unbox(boxed_params), specs)


def put_batch(batch: Any, mesh: Mesh) -> Any:
  """Moves each process's rows of a batch to its devices."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, x), batch
  )
