"""Base of the sessions on labelled images: description and training batches."""

import dataclasses
from collections.abc import Iterator, Sequence

from rahf.data.schema import Batch
from rahf.pretrained import loading
from rahf.runtime.tree import by_path
from rahf.tasks import clip_data
from rahf.tasks.feedback_data import FeedbackData
from rahf.training.setup import Setup


@dataclasses.dataclass(frozen=True)
class DataSession:
  """A task with its data; the common part of a `training.task.Session`."""

  setup: Setup
  data: FeedbackData

  def describe(self, splits: Sequence[str]) -> str:
    return (
      f'Model: {self.setup.task.title}, {self.setup.describe()}\n'
      f'{self.data.describe(splits)}'
    )

  def plan_weights(self) -> loading.Plan:
    config = self.setup.config
    return loading.plan(
      loading.open_sources(config.init, hints=clip_data.hints(config)),
      by_path(self.setup.states.abstract.params),
      config,
      section='config',
    )

  def train_batches(self, start_step: int) -> Iterator[Batch]:
    return self.data.train_batches(self.setup.config, self.setup.mesh, start_step)
