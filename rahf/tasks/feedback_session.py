"""The feedback task with its data: batches, pretrained weights, evaluator."""

import dataclasses
from collections.abc import Iterator, Sequence

from etils import epath

from rahf.data.open_dataset import TOKENIZER_FILE
from rahf.data.schema import Batch, Record
from rahf.data.tokenizer import at_word_ends
from rahf.evaluation.score_example import ExampleLabels
from rahf.models.rahf import RAHF, Outputs
from rahf.pretrained import loading
from rahf.pretrained.card import ABOUT, model_card
from rahf.runtime.tree import by_path
from rahf.tasks.feedback_data import FeedbackData
from rahf.tasks.feedback_evaluator import FeedbackEvaluator
from rahf.training.setup import Setup

HEADLINES = ('loss/total', 'overall/srcc', 'implausibility/cc', 'keywords/f1')


@dataclasses.dataclass(frozen=True)
class FeedbackSession:
  """The feedback task with its data; a `training.task.Session`."""

  setup: Setup
  model: RAHF
  data: FeedbackData

  def describe(self, splits: Sequence[str]) -> str:
    return (
      f'Model: {self.setup.task.title}, {self.setup.describe()}\n'
      f'{self.data.describe(splits)}'
    )

  def plan_weights(self) -> loading.Plan:
    return loading.plan(
      loading.open_sources(self.setup.config.init, self.model.config.vit),
      by_path(self.setup.states.abstract.params),
      self.model.config,
    )

  def write_description(self, workdir: epath.Path, plan: loading.Plan) -> None:
    card = model_card(ABOUT, self.setup.task.title, plan)
    (workdir / 'model_card.md').write_text(card)
    # Exporting the model needs the tokenizer, perhaps without the data.
    (workdir / TOKENIZER_FILE).write_bytes(self.data.tokenizer.to_bytes())

  def train_batches(self, start_step: int) -> Iterator[Batch]:
    return self.data.train_batches(self.setup.config, self.setup.mesh, start_step)

  def evaluator(self) -> FeedbackEvaluator:
    mark_ids = self.data.tokenizer.mark_ids
    eval_step = self.setup.task.make_eval_step(self.setup.gather, mark_ids)
    return FeedbackEvaluator(
      self.setup, self.data, eval_step, self._read_labels, headlines=HEADLINES
    )

  def _read_labels(self, record: Record, outputs: Outputs, row: int) -> ExampleLabels:
    pieces = self.data.tokenizer.encode(record.prompt)
    keywords = self.data.tokenizer.read_marks(pieces, outputs.keywords[row])
    return ExampleLabels(
      outputs.maps[row],
      outputs.scores[row],
      keywords.labels,
      keywords.unplaced,
      at_word_ends(outputs.p_misaligned[row], pieces),
    )
