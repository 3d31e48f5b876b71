"""The interface of a task: model, loss, data and evaluation.

The trainer does everything else, which all tasks share: mesh, micro-batches, optimizer,
checkpoints, logs, interruption.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
from etils import epath
from ml_collections import ConfigDict

from rahf.pretrained.loading import Plan
from rahf.reports.tensorboard import TensorBoardWriter
from rahf.runtime.distributed import StopSignal

Variables = Mapping[str, Any]
"""Flax's collections by name: 'params', and others such as 'batch_stats'."""


class Losses(Protocol):
  """A NamedTuple of scalars; all are logged, `total` is minimised."""

  total: jax.Array

  def _asdict(self) -> dict[str, jax.Array]: ...


class Task(Protocol):
  """A model and its loss; needs no data.

  Attributes:
    config: all settings of the run.
    title: the model in a few words.
    trains: whether there is something to train; otherwise it can only be evaluated.
    dtype: compute dtype of the model; a step casts the parameters to it.
  """

  config: ConfigDict
  title: str
  trains: bool
  dtype: str

  def init(self, key: jax.Array) -> Variables:
    """Returns fresh variables, boxed with their logical axes.

    The training state also keeps the collections other than 'params', and takes their
    new values from `loss`.
    """
    ...

  def batch_shapes(
    self,
    rows: int,
    sharding: jax.sharding.Sharding | None = None,
    *,
    train: bool = False,
  ) -> Any:
    """Returns shapes and dtypes of a batch: a tree of arrays [rows, ...].

    Args:
      train: for the training step, whose batches may hold more than those of the
        evaluation step.
    """
    ...

  def count_labels(self, batch: Any) -> Any:
    """Counts the labels by which the loss is averaged."""
    ...

  def loss(
    self, variables: Variables, batch: Any, counts: Any, key: jax.Array
  ) -> tuple[Losses, Variables]:
    """Returns the training losses, and the new values of the other collections.

    Args:
      batch: a whole batch, or one of its micro-batches.
      counts: `count_labels` of the whole batch. Sums are divided by these counts, so
        that the losses of micro-batches add up to those of the batch.
      key: for dropout and other randomness.
    """
    ...

  def make_eval_step(
    self, gather: Callable[[Any], Any]
  ) -> Callable[[Variables, Any], Any]:
    """Returns the evaluation step, a function of variables and batch, to compile it.

    Args:
      gather: turns the state's parameters into those that the model is applied with.
    """
    ...

  def open(self, setup: Any, workdir: epath.Path) -> 'Session':
    """Opens the data.

    Args:
      setup: the `training.setup.Setup` of this task.
      workdir: of the run, which may not exist yet.

    Raises:
      InputError: the data is missing or does not fit the config.
    """
    ...


class Session(Protocol):
  """A task with its data."""

  def describe(self, splits: Sequence[str]) -> str:
    """Describes model and data in a few lines of text."""
    ...

  def plan_weights(self) -> Plan:
    """Decides where each parameter of a new run comes from; reads no arrays."""
    ...

  def write_description(self, workdir: epath.Path, plan: Plan) -> None:
    """Writes model card and tokenizer of a new run; called by one process."""
    ...

  def train_batches(self, start_step: int) -> Iterator[Any]:
    """Yields this process's rows of each batch from `start_step` on, endlessly."""
    ...

  def evaluator(self) -> 'Evaluator':
    """Returns the evaluator of the task's model on this data."""
    ...


class Evaluator(Protocol):
  """Evaluates a task's model on splits of its data.

  Attributes:
    headlines: the metrics to print.
  """

  headlines: Sequence[str]

  def compile(self) -> None:
    """Compiles the evaluation step ahead of the first evaluation."""
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

    The tables, in <split>-<step>.md, are written last.

    Returns:
      All metrics, and the tables as text, '' in other processes.

    Raises:
      Interrupted: a signal came; nothing was written.
    """
    ...
