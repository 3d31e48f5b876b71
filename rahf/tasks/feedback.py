"""Learning rich feedback: heatmaps, scores and misaligned words of an image."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
from etils import epath
from ml_collections import ConfigDict

from rahf import config as config_lib
from rahf.data.open_dataset import TOKENIZER_FILE
from rahf.data.schema import Batch
from rahf.models.init import init_variables
from rahf.models.rahf import RAHF
from rahf.pretrained import loading
from rahf.pretrained.card import model_card
from rahf.runtime.tree import by_path
from rahf.tasks.feedback_data import FeedbackData, open_data
from rahf.tasks.feedback_evaluator import FeedbackEvaluator
from rahf.training import losses
from rahf.training.batch_spec import batch_shapes
from rahf.training.losses import LabelSums, Losses
from rahf.training.setup import Setup
from rahf.training.task import Variables


@dataclasses.dataclass(frozen=True)
class FeedbackTask:
  """RAHF and its weighted loss (paper section 4); see `training.task.Task`."""

  config: ConfigDict
  model: RAHF

  @classmethod
  def of(cls, config: ConfigDict) -> 'FeedbackTask':
    return cls(config, RAHF(config_lib.model_config(config)))

  @property
  def dtype(self) -> str:
    return self.model.config.dtype

  def init(self, key: jax.Array) -> Variables:
    return init_variables(self.model, key)

  def batch_shapes(
    self, rows: int, sharding: jax.sharding.Sharding | None = None
  ) -> Batch:
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

  def open(self, setup: Setup) -> 'FeedbackSession':
    return FeedbackSession(setup, self.model, open_data(self.config))


@dataclasses.dataclass(frozen=True)
class FeedbackSession:
  """The task with its data; see `training.task.Session`."""

  setup: Setup
  model: RAHF
  data: FeedbackData

  def describe(self, splits: Sequence[str]) -> str:
    model = self.model.config
    return (
      f'Model: {model.variant}, {model.image_size} px, {self.setup.describe()}\n'
      f'{self.data.describe(splits)}'
    )

  def plan_weights(self) -> loading.Plan:
    return loading.plan(
      loading.open_sources(self.setup.config.init, self.model.config.vit),
      by_path(self.setup.states.abstract.params),
      self.model.config,
    )

  def write_description(self, workdir: epath.Path, plan: loading.Plan) -> None:
    (workdir / 'model_card.md').write_text(model_card(self.model.config, plan))
    # Where the model is exported, the data may not be.
    (workdir / TOKENIZER_FILE).write_bytes(self.data.tokenizer.to_bytes())

  def train_batches(self, start_step: int) -> Iterator[Batch]:
    return self.data.train_batches(self.setup.config, self.setup.mesh, start_step)

  def evaluator(self) -> FeedbackEvaluator:
    return FeedbackEvaluator(self.setup, self.model, self.data)
