"""The evaluation step of a task, jitted."""

from collections.abc import Callable
from typing import Any

import jax

from rahf.runtime import sharding
from rahf.training.setup import Setup
from rahf.training.task import Variables


class JittedEvalStep:
  """A function of (variables, batch), whose result every device gets."""

  def __init__(self, setup: Setup, step: Callable[[Variables, Any], Any]):
    """Jits the step.

    Raises:
      InputError: the devices do not divide `config.eval.batch_size`.
    """
    size = setup.config.eval.batch_size
    sharding.check_batch_size('config.eval.batch_size', size, setup.mesh)
    self._setup = setup
    self._step = jax.jit(step, out_shardings=sharding.replicated(setup.mesh))

  def __call__(self, variables: Variables, batch: Any) -> Any:
    return self._step(variables, batch)

  def compile(self) -> None:
    """Compiles the step ahead of its first call."""
    setup = self._setup
    rows = sharding.batch_sharding(setup.mesh)
    batch = setup.task.batch_shapes(setup.config.eval.batch_size, rows)
    self._step = self._step.lower(setup.states.abstract.variables, batch).compile()
