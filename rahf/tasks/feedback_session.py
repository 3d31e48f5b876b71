"""The feedback task with its data: batches, pretrained weights, evaluator."""

from etils import epath

from rahf.data.schema import TOKENIZER_FILE, Record
from rahf.data.tokenizer import at_word_ends
from rahf.errors import InputError
from rahf.evaluation.score_example import ExampleLabels
from rahf.models.rahf import RAHF, Outputs
from rahf.pretrained import loading
from rahf.pretrained.card import ABOUT, model_card
from rahf.runtime.tree import by_path
from rahf.tasks.data_session import DataSession
from rahf.tasks.feedback_evaluator import FeedbackEvaluator

HEADLINES = ('loss/total', 'overall/srcc', 'implausibility/cc', 'keywords/f1')


class FeedbackSession(DataSession):
  """The feedback task with its data; a `training.task.Session`."""

  @property
  def model(self) -> RAHF:
    return self.setup.task.model

  def plan_weights(self) -> loading.Plan:
    sources = loading.open_sources(self.setup.config.init, self.model.config.vit)
    own = self.data.tokenizer.to_bytes()
    for role, source in sources.items():
      if source.tokenizer not in (b'', own):
        raise InputError(
          f'config.init.{role} = {source.path} was trained with another tokenizer than '
          f'that of the data; set --config.tokenizer={source.path}/{TOKENIZER_FILE}'
        )
    params = by_path(self.setup.states.abstract.params)
    return loading.plan(sources, params, self.model.config)

  def write_description(self, workdir: epath.Path, plan: loading.Plan) -> None:
    card = model_card(ABOUT, self.setup.task.title, plan)
    (workdir / 'model_card.md').write_text(card)
    # Exporting the model needs the tokenizer, perhaps without the data.
    (workdir / TOKENIZER_FILE).write_bytes(self.data.tokenizer.to_bytes())

  def evaluator(self) -> FeedbackEvaluator:
    eval_step = self.setup.task.make_eval_step(
      self.setup.gather,
      self.data.tokenizer.mark_ids,
      self.data.options.target_length,
    )
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
