"""The feedback task: RAHF learns heatmaps, scores and misaligned words."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from rahf import config as config_lib
from rahf.data.schema import Batch
from rahf.models.init import init_variables
from rahf.models.rahf import RAHF
from rahf.training import losses
from rahf.training.batch_spec import batch_shapes
from rahf.training.eval_step import EvalResult, make_eval_step
from rahf.training.losses import LabelSums, Losses
from rahf.training.setup import Setup
from rahf.training.task import Session, Variables

# Ids of the mark to compile with: any two give the same program.
ANY_MARK_IDS = (2, 3)


@dataclasses.dataclass(frozen=True)
class FeedbackTask:
  """RAHF and its weighted loss (paper section 4); a `training.task.Task`."""

  config: ConfigDict
  model: RAHF
  trains = True

  @classmethod
  def of(cls, config: ConfigDict) -> 'FeedbackTask':
    return cls(config, RAHF(config_lib.model_config(config)))

  @property
  def title(self) -> str:
    return f'{self.model.config.variant}, {self.model.config.image_size} px'

  @property
  def dtype(self) -> str:
    return self.model.config.dtype

  def init(self, key: jax.Array) -> Variables:
    return init_variables(self.model, key)

  def batch_shapes(
    self,
    rows: int,
    sharding: jax.sharding.Sharding | None = None,
    *,
    train: bool = False,
  ) -> Batch:
    del train
    return batch_shapes(self.config, rows, sharding)

  def count_labels(self, batch: Batch) -> LabelSums:
    return losses.count_labels(batch)

  def loss(
    self, variables: Variables, batch: Batch, counts: LabelSums, key: jax.Array
  ) -> tuple[Losses, Variables]:
    outputs = self.model.apply(
      variables,
      batch.image,
      batch.text,
      batch.target,
      train=True,
      rngs={'dropout': key},
    )
    errors = losses.sum_errors(outputs, batch)
    return losses.weighted_losses(errors, counts, self.config.loss), {}

  def make_eval_step(
    self,
    gather: Callable[[Any], Any],
    mark_ids: tuple[int, ...] = ANY_MARK_IDS,
    length: int | None = None,
  ) -> Callable[[Variables, Batch], EvalResult]:
    length = length or self.config.data.target_length
    return make_eval_step(self.model, self.config.keywords, mark_ids, length, gather)

  def open(self, setup: Setup, workdir: epath.Path) -> Session:
    del workdir
    # Imported late: loading data needs TensorFlow, the model does not.
    from rahf.tasks.feedback_data import open_data
    from rahf.tasks.feedback_session import FeedbackSession

    return FeedbackSession(setup, open_data(self.config))
