"""The baseline task with its data: pretrained weights, evaluator, labels."""

import numpy as np
from etils import epath

from rahf.data import label_words
from rahf.data.images import clip_image, codec
from rahf.data.schema import MAPS, SCORES, Record
from rahf.errors import InputError
from rahf.evaluation.score_example import DIVERGED, ExampleLabels
from rahf.models.baselines import Kind, WordRelevance
from rahf.models.rahf import Outputs
from rahf.pretrained import loading
from rahf.pretrained.card import model_card
from rahf.tasks.data_session import DataSession
from rahf.tasks.feedback_evaluator import FeedbackEvaluator

# A word whose tokens speak against the image by more than this (CLIP4DM).
MISALIGNED_BELOW = -5e-5


class BaselineSession(DataSession):
  """The baseline task with its data; a `training.task.Session`."""

  @property
  def kind(self) -> Kind:
    return self.setup.task.kind

  def plan_weights(self) -> loading.Plan:
    plan = super().plan_weights()
    if plan.fresh and not self.kind.trains:
      options = self.setup.config.baseline
      raise InputError(
        f'config.init.{self.kind.weights} is empty: {options.kind} is not trained and '
        'needs pretrained weights'
      )
    return plan

  def write_description(self, workdir: epath.Path, plan: loading.Plan) -> None:
    about = f'# {self.setup.config.baseline.kind}\n\nA baseline to compare RAHF with.\n'
    card = model_card(about, self.setup.task.title, plan)
    (workdir / 'model_card.md').write_text(card)

  def evaluator(self) -> FeedbackEvaluator:
    return FeedbackEvaluator(
      self.setup,
      self.data,
      self.setup.task.make_eval_step(self.setup.gather),
      self._read_labels,
      headlines=self._headlines,
      has_threshold=False,
    )

  @property
  def _headlines(self) -> tuple[str, ...]:
    """The metrics to print: the losses of what is trained, then what is predicted."""
    kind = self.kind
    return (
      *(['loss/total'] if kind.trains else []),
      *(f'{name}/srcc' for name in kind.scores),
      *(f'{name}/cc' for name in kind.maps),
      *(['keywords/f1'] if kind.words else []),
    )

  def _read_labels(
    self, record: Record, outputs: Outputs | WordRelevance, row: int
  ) -> ExampleLabels:
    maps, scores, words = [None] * len(MAPS), [None] * len(SCORES), None
    if isinstance(outputs, WordRelevance):
      words = self._words(record, outputs.tokens[row])
    elif self.kind.maps:
      for index in map(MAPS.index, self.kind.maps):
        maps[index] = self._whole(record, outputs.maps[row, index])
    else:
      for index in map(SCORES.index, self.kind.scores):
        scores[index] = float(outputs.scores[row, index])
    return ExampleLabels(maps, scores, words, calibrated=self.kind.trains)

  def _whole(self, record: Record, heat: np.ndarray) -> np.ndarray:
    """Returns a map of the whole image; CLIP sees only a square of it."""
    if self.kind.weights != 'clip':
      return heat
    width, height = codec.upright_size(codec.open_image(record.image))
    return clip_image.uncrop(heat, height, width)

  def _words(self, record: Record, relevance: np.ndarray) -> tuple[int, ...]:
    """Returns a label for each word: 0 if its tokens speak against the image.

    Words that were cut off count as aligned.
    """
    if not np.isfinite(relevance).all():
      raise InputError(f'the relevance of the words of {record.uid} is NaN: {DIVERGED}')
    tokens = self.data.tokenizer.tokens_of(
      record.prompt, label_words.label_spans(record.prompt)
    )
    means = (np.mean(relevance[word]) if word else 0.0 for word in tokens)
    return tuple(int(mean >= MISALIGNED_BELOW) for mean in means)
