"""Compiles the steps of a config and says what they need, without running them.

For the devices that are here, or with libtpu for a TPU slice that is not: XLA
compiles the real programs from shapes alone.
"""

import importlib.util
import math
import os

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rahf import config as config_lib
from rahf import optimizer as optimizer_lib
from rahf import sharding
from rahf.costs.chips import CHIPS, GB, GIB
from rahf.costs.program import Costs, captured_stderr, measure
from rahf.data.schema import MAPS, SCORES, Batch
from rahf.errors import InputError
from rahf.evaluate import make_predict
from rahf.models.rahf import RAHF
from rahf.state import StateFactory
from rahf.step import jit_train_step
from rahf.tables import markdown_table

# Any two ids compile to the same program.
MARK_IDS = (2, 3)


def precompile(config: ConfigDict) -> str:
  """Returns a report on the training step and the inference step.

  Raises:
    InputError: a setting does not fit, there is no such topology, or no libtpu.
  """
  mesh = make_mesh(config)
  return report(config, mesh, *compile_steps(config, mesh))


def make_mesh(config: ConfigDict) -> Mesh:
  """Returns the mesh that the config means, after checking the config against it.

  Raises:
    InputError: as `precompile`.
  """
  config_lib.validate(config)
  mesh = sharding.make_mesh(config.mesh, find_devices(config.precompile.topology))
  sharding.check_batch_size(
    'config.train.batch_size', config.train.batch_size, mesh, config.train.accumulate
  )
  sharding.check_batch_size('config.eval.batch_size', config.eval.batch_size, mesh)
  return mesh


def find_devices(topology: str) -> list[jax.Device]:
  """Returns the devices of a TPU topology, or those that are here if it is ''.

  Raises:
    InputError: there is no such topology, or libtpu is not installed.
  """
  if not topology:
    return jax.devices()
  if importlib.util.find_spec('libtpu') is None:
    raise InputError(
      f'config.precompile.topology = {topology!r} needs the TPU compiler: pip install '
      '"rahf[tpu]", which works where there is no TPU too'
    )
  # Otherwise libtpu asks the cloud's metadata server which machine this is.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  try:
    with captured_stderr():
      return topologies.get_topology_desc(topology, 'tpu').devices
  except jax.errors.JaxRuntimeError as error:
    raise InputError(
      f'config.precompile.topology = {topology!r}: {error}; it is a generation and '
      'its chips along each axis, such as v5e:2x4, v5p:2x2x2 or v6e:4x4'
    ) from error


def compile_steps(config: ConfigDict, mesh: Mesh) -> tuple[Costs, Costs]:
  """Returns the costs of the training step and of the inference step."""
  model = RAHF(config_lib.model_config(config))
  optimizer = optimizer_lib.make_optimizer(config.optimizer, config.train.steps)
  states = StateFactory(model, optimizer, mesh)
  replicated = sharding.replicated(mesh)
  key = jax.eval_shape(lambda: jax.random.key(0))
  key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated)
  batch = abstract_batch(config, config.train.batch_size, mesh)
  predict = jax.jit(
    make_predict(model, config.keywords, MARK_IDS, config.data.target_length),
    out_shardings=replicated,
  )
  eval_batch = abstract_batch(config, config.eval.batch_size, mesh)
  with jax.set_mesh(mesh):
    training = measure(
      jit_train_step(config, model, optimizer, states, mesh),
      (states.abstract, batch, key),
      mesh,
      loop_trips=1,
    )
    inference = measure(
      predict,
      (states.abstract.params, eval_batch),
      mesh,
      # The decoder's loop ends when all sequences have.
      loop_trips=config.data.target_length,
    )
  return training, inference


def abstract_batch(config: ConfigDict, rows: int, mesh: Mesh) -> Batch:
  """Returns the shapes of a batch in its shards."""
  size, texts = config.model.image_size, config_lib.model_config(config).texts
  length, target = config.data.text_length, config.data.target_length
  split = sharding.batch_sharding(mesh)

  def array(dtype, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=split)

  return Batch(
    index=array(jnp.int32),
    image=array(jnp.float32, size, size, 3),
    text=array(jnp.int32, texts, length),
    word_end=array(jnp.bool_, length),
    target=array(jnp.int32, target),
    maps=array(jnp.float32, len(MAPS), size, size),
    map_mask=array(jnp.bool_, len(MAPS)),
    scores=array(jnp.float32, len(SCORES)),
    score_mask=array(jnp.bool_, len(SCORES)),
    keyword_mask=array(jnp.bool_),
    truncated=array(jnp.bool_),
  )


def report(config: ConfigDict, mesh: Mesh, training: Costs, inference: Costs) -> str:
  """Returns what was compiled, a table of its costs, and a verdict."""
  kind = mesh.devices.flat[0].device_kind
  axes = ' x '.join(f'{axis} {size}' for axis, size in mesh.shape.items())
  model, train = config.model, config.train
  columns = (cost_rows(costs, kind) for costs in (training, inference))
  rows = _side_by_side(*columns)
  return (
    f'{model.variant}, {model.image_size} px, {model.dtype}, remat {model.remat!r}, on '
    f'{mesh.size} x {kind} ({axes})\n'
    f'Training: {train.batch_size} images a step, micro-batches: {train.accumulate}. '
    f'Inference: {config.eval.batch_size} images.\n\n'
    f'{markdown_table(("each chip", "training step", "inference step"), rows)}\n\n'
    f'Training step: {_verdict(training, _advice(config, mesh))}.\n'
    f'Inference step: {_verdict(inference, "lower config.eval.batch_size")}.'
  )


def cost_rows(costs: Costs, kind: str) -> dict[str, str]:
  """Returns names and values of a program's costs on a kind of chip."""
  nothing = (math.nan,) * 3
  times = costs.times(CHIPS[kind]) if kind in CHIPS else nothing
  share = costs.exchanged / costs.bytes_moved if costs.bytes_moved else math.nan
  rows = {
    'arguments': _known(costs.arguments / GIB, 'GiB'),
    'temporaries': _known(costs.temporaries / GIB, 'GiB'),
    'outputs': _known(costs.outputs / GIB, 'GiB'),
    'peak memory': _known(costs.peak / GIB, 'GiB'),
    'memory of the chip': _known(costs.limit / GIB, 'GiB'),
    'FLOPs': _known(costs.flops / 1e12, 'T'),
    'bytes moved': _known(costs.bytes_moved / GB, 'GB'),
    'bytes exchanged': _known(costs.exchanged / GB, 'GB')
    + ('' if math.isnan(share) else f' ({share:.1%})'),
  }
  for collective in costs.collectives:
    rows[f'- {collective.kind}'] = (
      f'{collective.count} x, {_known(collective.bytes / GB, "GB")}'
    )
  for name, seconds in zip(('FLOPs', 'memory', 'collectives'), times, strict=True):
    rows[f'time for {name}'] = _known(seconds, 's')
  longest = max((t for t in times if not math.isnan(t)), default=math.nan)
  return rows | {
    'a step takes at least': _known(longest, 's'),
    'copies to reshard': str(costs.resharding),
    'compiled in': _known(costs.seconds, 's'),
  }


def _side_by_side(one: dict[str, str], other: dict[str, str]) -> list[list[str]]:
  """Joins two columns by the names of their rows, in an order that fits both."""
  names, before = list(one), ''
  for name in other:
    if name not in names:
      names.insert(names.index(before) + 1, name)
    before = name
  return [[name, one.get(name, '–'), other.get(name, '–')] for name in names]


def _known(value: float, unit: str) -> str:
  return '–' if math.isnan(value) else f'{value:.3g} {unit}'


def _verdict(costs: Costs, advice: str) -> str:
  if not costs.fits:
    return (
      f'DOES NOT FIT, it needs {costs.peak / GIB:.2f} of {costs.limit / GIB:.2f} GiB; '
      f'{advice}'
    )
  if math.isnan(costs.limit):
    return 'compiles; how much memory such a device has is not known here'
  return f'fits, {(costs.limit - costs.peak) / GIB:.2f} GiB to spare'


def _advice(config: ConfigDict, mesh: Mesh) -> str:
  """Says what to change first if the training step does not fit."""
  shards = math.prod(mesh.shape[axis] for axis in sharding.BATCH_AXES)
  if config.model.remat != 'blocks':
    return "set config.model.remat = 'blocks'"
  if config.train.batch_size > config.train.accumulate * shards:
    return f'set config.train.accumulate = {2 * config.train.accumulate}'
  if mesh.shape['data'] > 1:
    return 'shard the parameters: config.mesh.data = 1, config.mesh.fsdp = -1'
  return 'take chips with more memory, or a smaller config.model.image_size'
