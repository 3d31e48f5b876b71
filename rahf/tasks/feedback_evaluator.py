"""Evaluates RAHF and its baselines: every metric over a split, and the reports."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import jax
import numpy as np
from etils import epath
from tqdm import tqdm

from rahf.data import schema
from rahf.data.pipeline.batches import eval_batches
from rahf.data.pipeline.prefetch import prefetch
from rahf.data.storage.records import RecordSplit
from rahf.evaluation import samples
from rahf.evaluation.samples import THRESHOLD, EvaluatedExample, Evaluation
from rahf.evaluation.score_example import ExampleLabels, score
from rahf.fileio import strict_json
from rahf.inference.step import ANY_THRESHOLD
from rahf.models.rahf import Outputs
from rahf.reports import report
from rahf.reports.gallery import Gallery
from rahf.reports.tensorboard import TensorBoardWriter
from rahf.runtime import distributed, sharding
from rahf.runtime.distributed import StopSignal
from rahf.tasks.feedback_data import FeedbackData
from rahf.tasks.jitted_eval_step import JittedEvalStep
from rahf.training import losses
from rahf.training.eval_step import EvalResult
from rahf.training.losses import LabelSums
from rahf.training.setup import Setup
from rahf.training.task import Variables


class ReadLabels(Protocol):
  """Turns the outputs for one example into its labels, on the host."""

  def __call__(
    self, record: schema.Record, outputs: Outputs, row: int
  ) -> ExampleLabels: ...


class FeedbackEvaluator:
  """Evaluates a model on splits of a data set; a `training.task.Evaluator`.

  Attributes:
    headlines: the metrics to print; the reports have all.
    eval_step: from (variables, batch) to `EvalResult`.
  """

  def __init__(
    self,
    setup: Setup,
    data: FeedbackData,
    eval_step: Callable[[Variables, schema.Batch], EvalResult],
    read_labels: ReadLabels,
    *,
    headlines: Sequence[str],
    has_threshold: bool = True,
  ):
    """Jits the step.

    Args:
      has_threshold: whether the step gives probabilities of words, with which a
        threshold is chosen on `config.keywords.threshold_split`.
    """
    self.headlines = headlines
    self._setup = setup
    self._config = setup.config
    self._data = data
    self._read_labels = read_labels
    self._has_threshold = has_threshold
    self._batch_size = self._config.eval.batch_size
    self.eval_step = JittedEvalStep(setup, eval_step)

  def compile(self) -> None:
    """Compiles `eval_step` ahead of its first call."""
    self.eval_step.compile()

  def splits_before(self, split: str) -> Sequence[str]:
    """Returns the split that the threshold for keywords is chosen on."""
    chosen_on = self._config.keywords.threshold_split
    return (chosen_on,) if self._has_threshold and split != chosen_on else ()

  def evaluate(
    self,
    variables: Variables,
    workdir: epath.Path,
    step: int,
    split_name: str,
    stop: StopSignal,
    board: TensorBoardWriter | None = None,
  ) -> tuple[dict[str, float], str]:
    """Evaluates a split and writes its reports; see `training.task.Evaluator`."""
    split = self._data.split(split_name)
    threshold = None  # Chosen on this split.
    if self.splits_before(split_name):
      chosen_on = self._config.keywords.threshold_split
      threshold = read_threshold(workdir / 'eval', chosen_on, step)
    gallery = self._gallery(len(split), board) if distributed.is_first() else None
    evaluation = self.measure(
      variables, split, threshold=threshold, gallery=gallery, stop=stop
    )
    if gallery is None:
      return evaluation.metrics, ''
    with distributed.interruptible(stop.interruption):
      tables = report.write(
        workdir / 'eval',
        evaluation,
        gallery,
        data_name=self._data.name,
        train=self._data.split('train'),
        split=split,
        step=step,
      )
    if board:
      report.show(board, step, split_name, evaluation, gallery, tables)
    return evaluation.metrics, tables

  def measure(
    self,
    variables: Variables,
    split: RecordSplit,
    *,
    threshold: float | None = None,
    gallery: Gallery | None = None,
    stop: StopSignal | None = None,
  ) -> Evaluation:
    """Evaluates every example of the split once; writes nothing.

    Args:
      threshold: of constrained decoding; None for the best on this split.
      gallery: collects the examples for the reports.
      stop: checked before every batch.

    Raises:
      Interrupted: a signal came.
    """
    scored: list[EvaluatedExample] = []
    truncated = 0
    errors = counts = LabelSums(np.zeros(2), np.zeros(4), np.zeros(()))
    bar = tqdm(
      total=len(split),
      desc=f'evaluate {split.name}',
      unit='example',
      leave=False,
      disable=None,
    )
    with bar, contextlib.closing(self._batches(split)) as batches:
      for batch in batches:
        if stop:
          stop.check()
        found = jax.tree.map(np.asarray, self.eval_step(variables, batch))
        errors = jax.tree.map(np.add, errors, found.errors)
        counts = jax.tree.map(np.add, counts, found.counts)
        truncated += int(found.truncated.sum())
        for record, prediction in self._examples(split, found):
          scored.append(score(record, prediction))
          if gallery:
            gallery.add(record, prediction, scored[-1])
          bar.update()
    metrics = _losses(errors, counts, self._config.loss)
    metrics |= samples.metrics(scored, threshold)
    metrics['keywords/truncated'] = truncated
    return Evaluation(metrics, scored)

  def _batches(self, split: RecordSplit) -> Iterator[schema.Batch]:
    mesh = self._setup.mesh
    batches = eval_batches(
      split,
      self._data.tokenizer,
      self._data.options,
      batch_size=self._batch_size,
      rows=sharding.process_rows(self._batch_size, mesh),
    )
    return prefetch(batches, lambda batch: sharding.put_batch(batch, mesh))

  def _examples(
    self, split: RecordSplit, found: EvalResult
  ) -> Iterator[tuple[schema.Record, ExampleLabels]]:
    """Yields the records of a batch, padding left out, with their predictions."""
    for row, index in enumerate(found.index):
      if index >= 0:
        record = split[int(index)]
        yield record, self._read_labels(record, found.outputs, row)

  def _gallery(self, examples: int, board: TensorBoardWriter | None) -> Gallery:
    options = self._config.review
    if not board:
      return Gallery(thumbnails=options.page)
    # Evenly spaced, since neighbours may have the same prompt.
    panels = range(0, examples, max(1, examples // max(1, options.examples)))
    return Gallery(
      thumbnails=options.page, panels=panels[: options.examples], worst=options.worst
    )


def _losses(errors: LabelSums, counts: LabelSums, weights) -> dict[str, float]:
  """Returns the mean losses by name; NaN for those without any label."""
  means = losses.weighted_losses(errors, counts, weights)._asdict()
  for name, count in zip(('heatmap', 'score', 'sequence'), counts, strict=True):
    if not np.any(count):
      means[name] = np.nan
  if not any(map(np.any, counts)):
    means['total'] = np.nan
  return {f'loss/{name}': float(value) for name, value in means.items()}


def read_threshold(folder: epath.Path, split: str, step: int) -> float:
  """Returns the threshold of constrained decoding that was best on a split.

  Args:
    folder: `eval` in the work directory; only the first process reads it.
    split: the split, which has been evaluated at this step.

  Raises:
    InputError: the file is damaged.
  """
  threshold = 0.0
  if distributed.is_first():
    path = folder / f'{split}-{step}.json'
    kept = strict_json.read_own(path, 'delete it, and evaluate again with --mode=eval')
    # Missing if the split has no annotated words.
    threshold = kept.get(THRESHOLD, ANY_THRESHOLD)
  return distributed.from_first(threshold)
