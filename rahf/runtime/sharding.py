"""The device mesh, and how parameters and batches are sharded over it."""

import math
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from rahf.errors import InputError
from rahf.runtime.tree import path_name

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
    sizes: mapping with data, fsdp and tensor; at most one is -1 (all remaining).
    devices: by default those of all processes.

  Raises:
    InputError: the product of the sizes is not the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  shape = [sizes[axis] for axis in AXES]
  named = ', '.join(f'{axis}={size}' for axis, size in zip(AXES, shape, strict=True))
  if shape.count(-1) > 1 or any(size < 1 and size != -1 for size in shape):
    raise InputError(
      f'config.mesh has {named}: sizes must be positive, and at most one -1'
    )
  if -1 in shape:
    rest = math.prod(size for size in shape if size != -1)
    shape[shape.index(-1)] = len(devices) // rest
  if math.prod(shape) != len(devices):
    raise InputError(
      f'config.mesh has {named}, whose product is not {len(devices)}, the number of '
      'devices; change config.mesh.data, .fsdp or .tensor'
    )
  # jax.make_mesh places neighbours in the mesh close together in the hardware.
  return jax.make_mesh(shape, AXES, (AxisType.Auto,) * 3, devices=devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns a sharding that splits the leading axis of a batch."""
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
  logical = nn.get_partition_spec(boxed_params)
  specs = nn.logical_to_mesh(logical, LOGICAL_AXIS_RULES)

  def sharding(path, shape, names, spec):
    for size, name, axis in zip(shape.shape, names, spec, strict=False):
      if axis is not None and size % mesh.shape[axis]:
        path = path_name(path)
        raise InputError(
          f'config.mesh.{axis} = {mesh.shape[axis]} does not divide '
          f'{_field(path, name)} = {size} (of {path} {shape.shape}); change one of them'
        )
    return NamedSharding(mesh, spec)

  return jax.tree_util.tree_map_with_path(
    sharding, nn.unbox(boxed_params), logical, specs
  )


def gather(params: Any, shardings: Any, dtype: str) -> Any:
  """All-gathers parameters along `fsdp` before a step computes with them.

  Left to itself, the compiler splits every matrix product and convolution instead and
  reduces their results, which are larger than the parameters.

  Args:
    shardings: of the parameters.
    dtype: of the computation. Modules cast kernels and tables to it anyway; casting
      before the exchange halves the traffic.
  """

  def gather_one(path, x: jax.Array, sharding: NamedSharding) -> jax.Array:
    if path[-1].key in ('kernel', 'embedding'):
      x = x.astype(dtype)
    axes = (None if axis == 'fsdp' else axis for axis in sharding.spec)
    sharding = NamedSharding(sharding.mesh, PartitionSpec(*axes))
    return jax.lax.with_sharding_constraint(x, sharding)

  return jax.tree_util.tree_map_with_path(gather_one, params, shardings)


def _field(path: str, axis: str) -> str:
  """Returns the setting that determines the size of a parameter's axis."""
  module, layer, *_ = path.split('/')
  if module == 'resnet':
    return 'config.resnet.width'
  if module == 'clip':
    return f'a size in config.clip.{layer}'
  if module == 'score_layers':
    return 'a width in config.baseline.dense'
  if module.startswith('deconv_'):
    return 'a width in config.baseline.deconvs'
  for head in ('heatmap_head', 'score_head'):
    if module.startswith(head) and (layer, axis) != ('conv_0', 'conv_in'):
      return f'a width in config.model.{head}'
  names = {'vocab': 'vocab_size', 'joined_kv': 'heads'}
  name = 'width' if axis in ('embed', 'conv_in') else names.get(axis, axis)
  return f'config.model.{"vit" if module == "vit" else "t5"}.{name}'


def process_rows(batch_size: int, mesh: Mesh) -> Int[np.ndarray, 'rows']:
  """Returns the rows of a batch that this process's devices need, ascending.

  Processes that differ only along the tensor axis need the same rows.
  """
  slices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
  return np.unique(
    np.concatenate([np.arange(batch_size)[rows] for (rows,) in slices.values()])
  )


def put_batch(batch: Any, mesh: Mesh) -> Any:
  """Assembles a global batch from each process's rows, those of `process_rows`."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, x), batch
  )
