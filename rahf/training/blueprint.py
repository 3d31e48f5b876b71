"""What a config says of the network and its training, before there are data."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rahf import config as config_lib
from rahf.models.rahf import RAHF
from rahf.runtime import sharding
from rahf.training import optimizer as optimizer_lib
from rahf.training.state import StateFactory
from rahf.training.train_step import make_train_step


@dataclasses.dataclass(frozen=True)
class Blueprint:
  """The parts of a training run that can be compiled."""

  config: ConfigDict
  mesh: Mesh
  model: RAHF
  optimizer: optax.GradientTransformation
  states: StateFactory

  def check_train_batch(self) -> None:
    """Raises InputError if devices and micro-batches do not divide a batch."""
    options = self.config.train
    sharding.check_batch_size(
      'config.train.batch_size', options.batch_size, self.mesh, options.accumulate
    )

  def gather(self, params: Any) -> Any:
    """Returns parameters as a step computes with them (`sharding.gather`)."""
    shardings = self.states.shardings.params
    return sharding.gather(params, shardings, self.model.config.dtype)

  def train_step(self) -> Callable:
    """Returns the step as one program for the mesh.

    The state that it is given is consumed: the new one takes its memory.
    """
    replicated = sharding.replicated(self.mesh)
    step = make_train_step(
      self.model,
      self.optimizer,
      self.config.loss,
      gather=self.gather,
      accumulate=self.config.train.accumulate,
      schedule=optimizer_lib.make_schedule(
        self.config.optimizer, self.config.train.steps
      ),
      skip_nonfinite=self.config.train.max_skipped > 0,
    )
    return jax.jit(
      step,
      in_shardings=(
        self.states.shardings,
        sharding.batch_sharding(self.mesh),
        replicated,
      ),
      out_shardings=(self.states.shardings, replicated),
      donate_argnums=0,
    )


def draw_up(config: ConfigDict, devices: list[jax.Device] | None = None) -> Blueprint:
  """Checks the config and makes the parts that it describes.

  Args:
    devices: of the mesh; None takes those that are here.

  Raises:
    InputError: a setting does not fit; says which.
  """
  config_lib.validate(config)
  mesh = sharding.make_mesh(config.mesh, devices)
  model = RAHF(config_lib.model_config(config))
  optimizer = optimizer_lib.make_optimizer(config.optimizer, config.train.steps)
  states = StateFactory(model, optimizer, mesh)
  optimizer_lib.check_patterns(config.optimizer, states.abstract.params)
  return Blueprint(config, mesh, model, optimizer, states)
