"""Compiles the steps of a config and reports their costs, without running them.

It compiles for the local devices or, with libtpu, for any TPU slice: XLA needs only
shapes to compile the real programs.
"""

import importlib.util
import math
import os
from collections.abc import Callable

import jax
from jax.experimental import topologies
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rahf.config.settings import RAHF_TASKS
from rahf.costs.chips import CHIPS, GB, GIB
from rahf.costs.program import Costs, captured_stderr, measure
from rahf.drawing.markdown import markdown_table
from rahf.errors import InputError
from rahf.runtime import sharding
from rahf.tasks import make_task
from rahf.training.setup import Setup, set_up


def precompile(config: ConfigDict) -> str:
  """Returns a report on the training step and the inference step.

  Raises:
    InputError: a setting does not fit, the topology does not exist, or libtpu is not
      installed.
  """
  setup = set_up_for_topology(config)
  return report(setup, *compile_steps(setup))


def set_up_for_topology(config: ConfigDict) -> Setup:
  """Sets up a run on the devices of `config.precompile.topology`.

  Raises:
    InputError: as `precompile`.
  """
  setup = set_up(make_task(config), find_devices(config.precompile.topology))
  setup.check_train_batch()
  sharding.check_batch_size(
    'config.eval.batch_size', config.eval.batch_size, setup.mesh
  )
  return setup


def find_devices(topology: str) -> list[jax.Device]:
  """Returns the devices of a TPU topology, or the local ones if it is ''.

  Raises:
    InputError: the topology does not exist, or libtpu is not installed.
  """
  if not topology:
    return jax.devices()
  if importlib.util.find_spec('libtpu') is None:
    raise InputError(
      f'config.precompile.topology = {topology!r} needs the TPU compiler: pip install '
      '"rahf[tpu]", which also works without a TPU'
    )
  # Otherwise libtpu asks the cloud's metadata server which machine this is.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  # Otherwise libtpu refuses to load while another process uses it, even to compile.
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  try:
    with captured_stderr():
      return topologies.get_topology_desc(topology, 'tpu').devices
  except jax.errors.JaxRuntimeError as error:
    raise InputError(
      f'config.precompile.topology = {topology!r}: {error}; give a generation and the '
      'number of chips along each axis, such as v5e:2x4, v5p:2x2x2 or v6e:4x4'
    ) from error


def compile_steps(setup: Setup) -> tuple[Costs | None, Costs]:
  """Returns the costs of the training step, if there is one, and the inference step."""
  training = compile_training(setup) if setup.task.trains else None
  return training, compile_inference(setup)


def compile_training(setup: Setup) -> Costs:
  """Returns the costs of the training step."""
  step, arguments = training_step(setup)
  with jax.set_mesh(setup.mesh):
    return measure(step, arguments, setup.mesh, loop_trips=1)


def compile_inference(setup: Setup) -> Costs:
  """Returns the costs of the inference step."""
  step, arguments = inference_step(setup)
  # The decoder's loop ends when all sequences have ended.
  trips = setup.config.data.target_length
  with jax.set_mesh(setup.mesh):
    return measure(step, arguments, setup.mesh, loop_trips=trips)


def training_step(setup: Setup) -> tuple[Callable, tuple]:
  """Returns the jitted training step, and the shapes of its arguments."""
  step = jax.jit(setup.make_train_step(), **setup.jit_options)
  key = jax.eval_shape(lambda: jax.random.key(0))
  place = sharding.replicated(setup.mesh)
  key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=place)
  batch = setup.task.batch_shapes(
    setup.config.train.batch_size, sharding.batch_sharding(setup.mesh), train=True
  )
  return step, (setup.states.abstract, batch, key)


def inference_step(setup: Setup) -> tuple[Callable, tuple]:
  """Returns the jitted inference step, and the shapes of its arguments."""
  step = jax.jit(
    setup.task.make_eval_step(setup.gather),
    out_shardings=sharding.replicated(setup.mesh),
  )
  batch = setup.task.batch_shapes(
    setup.config.eval.batch_size, sharding.batch_sharding(setup.mesh), train=False
  )
  return step, (setup.states.abstract.variables, batch)


def report(setup: Setup, training: Costs | None, inference: Costs) -> str:
  """Returns what was compiled, a table of its costs, and a verdict."""
  config, mesh = setup.config, setup.mesh
  kind = mesh.devices.flat[0].device_kind
  axes = ' x '.join(f'{axis} {size}' for axis, size in mesh.shape.items())
  train = config.train
  remat = f', remat {config.model.remat!r}' if config.task in RAHF_TASKS else ''
  steps = {
    'training step': (training, _advice(config, mesh)),
    'inference step': (inference, 'lower config.eval.batch_size'),
  }
  steps = {name: step for name, step in steps.items() if step[0]}
  rows = _side_by_side(*(cost_rows(costs, kind) for costs, _ in steps.values()))
  verdicts = (
    f'{name.capitalize()}: {_verdict(*step)}.' for name, step in steps.items()
  )
  batch = f'Inference: {config.eval.batch_size} images.'
  if training:
    batch = (
      f'Training: {train.batch_size} images per step, {train.accumulate} '
      f'micro-batches. {batch}'
    )
  return '\n'.join(
    [
      f'{setup.task.title}, {setup.task.dtype}{remat}, on '
      f'{mesh.size} x {kind} ({axes})',
      f'{batch}\n',
      f'{markdown_table(("per chip", *steps), rows)}\n',
      *verdicts,
    ]
  )


def cost_rows(costs: Costs, kind: str) -> dict[str, str]:
  """Returns the costs of a program on a kind of chip, as name and text."""
  nothing = (math.nan,) * 3
  times = costs.times(CHIPS[kind]) if kind in CHIPS else nothing
  share = costs.exchanged / costs.bytes_moved if costs.bytes_moved else math.nan
  rows = {
    'arguments': _known(costs.arguments / GIB, 'GiB'),
    'temporaries': _known(costs.temporaries / GIB, 'GiB'),
    'outputs': _known(costs.outputs / GIB, 'GiB'),
    'peak memory': _known(costs.peak / GIB, 'GiB'),
    'chip memory': _known(costs.limit / GIB, 'GiB'),
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
    'roofline estimate': _known(longest, 's'),
    'copies to reshard': str(costs.resharding),
    'compiled in': _known(costs.seconds, 's'),
  }


def _side_by_side(*columns: dict[str, str]) -> list[list[str]]:
  """Joins columns by row name, in an order that respects all of them."""
  names: list[str] = []
  for column in columns:
    before = ''
    for name in column:
      if name not in names:
        names.insert(names.index(before) + 1 if before else 0, name)
      before = name
  return [[name, *(column.get(name, '–') for column in columns)] for name in names]


def _known(value: float, unit: str) -> str:
  return '–' if math.isnan(value) else f'{value:.3g} {unit}'


def _verdict(costs: Costs, advice: str) -> str:
  if not costs.fits:
    return (
      f'DOES NOT FIT: needs {costs.peak / GIB:.2f} of {costs.limit / GIB:.2f} GiB; '
      f'{advice}'
    )
  if math.isnan(costs.limit):
    return 'compiles; the memory of this device is unknown'
  return f'fits, {(costs.limit - costs.peak) / GIB:.2f} GiB to spare'


def _advice(config: ConfigDict, mesh: Mesh) -> str:
  """Returns what to change first if the training step does not fit."""
  shards = math.prod(mesh.shape[axis] for axis in sharding.BATCH_AXES)
  if config.task in RAHF_TASKS and config.model.remat != 'blocks':
    return "set config.model.remat = 'blocks'"
  if config.train.batch_size > config.train.accumulate * shards:
    return f'set config.train.accumulate = {2 * config.train.accumulate}'
  if mesh.shape['data'] > 1:
    return 'shard the parameters: config.mesh.data = 1, config.mesh.fsdp = -1'
  return 'use chips with more memory, or lower config.model.image_size'
