"""Sets up what a training step needs: task, mesh, optimizer, sharded state."""

import dataclasses
import math
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rahf.runtime import distributed, sharding
from rahf.training import optimizer as optimizer_lib
from rahf.training.state import StateFactory
from rahf.training.task import Task
from rahf.training.train_step import TrainStep, make_train_step


@dataclasses.dataclass(frozen=True)
class Setup:
  """The parts of a training run that do not need data; made by `set_up`."""

  config: ConfigDict
  task: Task
  mesh: Mesh
  optimizer: optax.GradientTransformation
  states: StateFactory

  def gather(self, params: Any) -> Any:
    """Returns the parameters that a step computes with (see `sharding.gather`)."""
    return sharding.gather(params, self.states.shardings.params, self.task.dtype)

  def make_train_step(self) -> TrainStep:
    """Returns the step as a pure function; jit it with `jit_options`."""
    options = self.config.train
    return make_train_step(
      self.task,
      self.optimizer,
      gather=self.gather,
      accumulate=options.accumulate,
      schedule=optimizer_lib.make_schedule(self.config.optimizer, options.steps),
      skip_nonfinite=options.max_skipped > 0,
      average=options.average,
    )

  @property
  def jit_options(self) -> dict[str, Any]:
    """Arguments of `jax.jit` for the train step: shardings and donation.

    The new state reuses the memory of the old one.
    """
    replicated = sharding.replicated(self.mesh)
    batch = sharding.batch_sharding(self.mesh)
    return {
      'in_shardings': (self.states.shardings, batch, replicated),
      'out_shardings': (self.states.shardings, replicated),
      'donate_argnums': 0,
    }

  def check_train_batch(self) -> None:
    """Raises InputError unless devices and micro-batches divide a batch."""
    options = self.config.train
    sharding.check_batch_size(
      'config.train.batch_size', options.batch_size, self.mesh, options.accumulate
    )

  def describe(self) -> str:
    """Describes the model's size and the devices in a line of text."""
    leaves = jax.tree.leaves(self.states.abstract.params)
    parameters = sum(math.prod(leaf.shape) for leaf in leaves)
    axes = ' x '.join(f'{axis} {size}' for axis, size in self.mesh.shape.items())
    kind = self.mesh.devices.flat[0].device_kind
    return (
      f'{parameters:,} parameters, {self.task.dtype}, on {self.mesh.size} x {kind} '
      f'({axes})'
    )


def set_up(task: Task, devices: list[jax.Device] | None = None) -> Setup:
  """Returns the parts of a training run that do not need data.

  Args:
    devices: of the mesh; None for all of them.

  Raises:
    InputError: a setting does not fit the model or the devices.
  """
  if devices is None:
    distributed.check_joined()
  config = task.config
  mesh = sharding.make_mesh(config.mesh, devices)
  optimizer = optimizer_lib.make_optimizer(config.optimizer, config.train.steps)
  averaged = config.train.average > 0
  states = StateFactory(task.init, optimizer, mesh, averaged=averaged)
  optimizer_lib.check_patterns(config.optimizer, states.abstract.params)
  return Setup(config, task, mesh, optimizer, states)
