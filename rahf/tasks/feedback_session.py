"""The feedback task with its data: batches, pretrained weights, evaluator."""

import dataclasses
from collections.abc import Iterator, Sequence

from etils import epath

from rahf.data.open_dataset import TOKENIZER_FILE
from rahf.data.schema import Batch
from rahf.models.rahf import RAHF
from rahf.pretrained import loading
from rahf.pretrained.card import model_card
from rahf.runtime.tree import by_path
from rahf.tasks.feedback_data import FeedbackData
from rahf.tasks.feedback_evaluator import FeedbackEvaluator
from rahf.training.setup import Setup


@dataclasses.dataclass(frozen=True)
class FeedbackSession:
  """The feedback task with its data; a `training.task.Session`."""

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
    # Exporting the model needs the tokenizer, perhaps without the data.
    (workdir / TOKENIZER_FILE).write_bytes(self.data.tokenizer.to_bytes())

  def train_batches(self, start_step: int) -> Iterator[Batch]:
    return self.data.train_batches(self.setup.config, self.setup.mesh, start_step)

  def evaluator(self) -> FeedbackEvaluator:
    return FeedbackEvaluator(self.setup, self.model, self.data)
