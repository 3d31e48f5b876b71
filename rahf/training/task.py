"""What the trainer knows of a task: its model, its loss, its data, its evaluation.

Meshes, micro-batches, the optimizer, checkpoints, logs and interruption are the
trainer's, and the same for every task.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
from etils import epath
from ml_collections import ConfigDict

from rahf.pretrained.loading import Plan
from rahf.reports.tensorboard import TensorBoardWriter
from rahf.runtime.distributed import StopSignal

Variables = Mapping[str, Any]
"""Flax's collections: 'params', and by other names what is not a parameter."""


class Losses(Protocol):
  """A NamedTuple of scalars; `total` is what is minimised, all are logged."""

  total: jax.Array

  def _asdict(self) -> dict[str, jax.Array]: ...


class Task(Protocol):
  """A model and its loss; needs no data.

  Attributes:
    config: all settings of the run.
    dtype: what the model computes in; parameters are cast to it for a step.
  """

  config: ConfigDict
  dtype: str

  def init(self, key: jax.Array) -> Variables:
    """Makes the model's variables, boxed with their logical axes.

    What is not a parameter, such as the statistics of batch norms in 'batch_stats',
    is kept in the training state, and replaced by what `loss` returns.
    """
    ...

  def batch_shapes(
    self, rows: int, sharding: jax.sharding.Sharding | None = None
  ) -> Any:
    """Returns shapes and dtypes of a batch: a tree whose arrays begin with rows."""
    ...

  def count_labels(self, batch: Any) -> Any:
    """Counts what the means of the loss are over."""
    ...

  def loss(
    self, variables: Variables, batch: Any, counts: Any, key: jax.Array
  ) -> tuple[Losses, Variables]:
    """Returns the losses of rows in training, and the new values of other variables.

    Args:
      batch: a whole batch, or one of its micro-batches.
      counts: `count_labels` of the whole batch. Sums are divided by them, so that the
        losses of micro-batches add up to those of the batch.
      key: of dropout and other randomness.
    """
    ...

  def open(self, setup: Any) -> 'Session':
    """Opens the data.

    Args:
      setup: the `training.setup.Setup` of this task.

    Raises:
      InputError: they are not there, or do not fit the config.
    """
    ...


class Session(Protocol):
  """A task with its data."""

  def describe(self, splits: Sequence[str]) -> str:
    """Returns lines for people: what is trained, and on what."""
    ...

  def plan_weights(self) -> Plan:
    """Says where each parameter of a new run comes from; reads no arrays."""
    ...

  def write_description(self, workdir: epath.Path, plan: Plan) -> None:
    """Writes what a new run keeps beside its checkpoints; one process calls it."""
    ...

  def train_batches(self, start_step: int) -> Iterator[Any]:
    """Yields the rows of this process from batch `start_step` on, without end."""
    ...

  def evaluator(self) -> 'Evaluator': ...


class Evaluator(Protocol):
  """Evaluates a task's model on splits of its data.

  Attributes:
    headlines: the metrics to print.
  """

  headlines: Sequence[str]

  def compile(self) -> None:
    """Compiles what the first evaluation would compile otherwise."""
    ...

  def splits_before(self, split: str) -> Sequence[str]:
    """Returns the splits that must be evaluated before this one."""
    ...

  def evaluate(
    self,
    variables: Variables,
    workdir: epath.Path,
    step: int,
    split: str,
    stop: StopSignal,
    board: TensorBoardWriter | None,
  ) -> tuple[dict[str, float], str]:
    """Evaluates a split; the first process writes its reports to WORKDIR/eval.

    Among them is <split>-<step>.md, with the tables, written last.

    Returns:
      All metrics, and the tables, '' in other processes.

    Raises:
      Interrupted: a signal came; nothing was written.
    """
    ...
