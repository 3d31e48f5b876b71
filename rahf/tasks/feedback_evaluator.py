"""Evaluates feedback models: computes every metric over a split, writes reports."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from tqdm import tqdm

from rahf.data import schema
from rahf.data.pipeline.batches import eval_batches
from rahf.data.pipeline.prefetch import prefetch
from rahf.data.storage.records import RecordSplit
from rahf.data.tokenizer import at_word_ends
from rahf.evaluation import samples
from rahf.evaluation.samples import THRESHOLD, EvaluatedExample, Evaluation
from rahf.evaluation.score_example import ExampleLabels, score
from rahf.fileio import strict_json
from rahf.inference.step import ANY_THRESHOLD
from rahf.models.rahf import RAHF
from rahf.reports import report
from rahf.reports.gallery import Gallery
from rahf.reports.tensorboard import TensorBoardWriter
from rahf.runtime import distributed, sharding
from rahf.runtime.distributed import StopSignal
from rahf.tasks.feedback_data import FeedbackData
from rahf.training import losses
from rahf.training.batch_spec import batch_shapes
from rahf.training.eval_step import EvalResult, make_eval_step
from rahf.training.losses import LabelSums
from rahf.training.setup import Setup
from rahf.training.task import Variables


class FeedbackEvaluator:
  """Evaluates a model on splits of a data set; a `training.task.Evaluator`.

  Attributes:
    headlines: the metrics to print; the reports have all.
    eval_step: from (parameters, batch) to `EvalResult`.
  """

  headlines = ('loss/total', 'overall/srcc', 'implausibility/cc', 'keywords/f1')

  def __init__(self, setup: Setup, model: RAHF, data: FeedbackData):
    self._setup = setup
    self._config = setup.config
    self._data = data
    self._batch_size = self._config.eval.batch_size
    sharding.check_batch_size('config.eval.batch_size', self._batch_size, setup.mesh)
    eval_step = make_eval_step(
      model,
      self._config.keywords,
      data.tokenizer.mark_ids,
      data.options.target_length,
      setup.gather,
    )
    self.eval_step = jax.jit(eval_step, out_shardings=sharding.replicated(setup.mesh))

  def compile(self) -> None:
    """Compiles `eval_step` ahead of its first call."""
    rows = sharding.batch_sharding(self._setup.mesh)
    batch = batch_shapes(self._config, self._batch_size, rows)
    params = self._setup.states.abstract.params
    self.eval_step = self.eval_step.lower(params, batch).compile()

  def splits_before(self, split: str) -> Sequence[str]:
    """Returns the split that the threshold for keywords is chosen on."""
    chosen_on = self._config.keywords.threshold_split
    return () if split == chosen_on else (chosen_on,)

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
      variables['params'], split, threshold=threshold, gallery=gallery, stop=stop
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
    params: Any,
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
        found = jax.tree.map(np.asarray, self.eval_step(params, batch))
        errors = jax.tree.map(np.add, errors, found.errors)
        counts = jax.tree.map(np.add, counts, found.counts)
        truncated += int(found.truncated.sum())
        for record, prediction in self._examples(split, found):
          scored.append(score(record, prediction))
          if gallery:
            gallery.add(record, prediction, scored[-1])
          bar.update()
    means = losses.weighted_losses(errors, counts, self._config.loss)
    metrics = {f'loss/{name}': float(v) for name, v in means._asdict().items()}
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
    tokenizer, outputs = self._data.tokenizer, found.outputs
    for row, index in enumerate(found.index):
      if index < 0:
        continue
      record = split[int(index)]
      pieces = tokenizer.encode(record.prompt)
      keywords = tokenizer.read_marks(pieces, outputs.keywords[row])
      yield (
        record,
        ExampleLabels(
          outputs.maps[row],
          outputs.scores[row],
          keywords.labels,
          keywords.unplaced,
          at_word_ends(outputs.p_misaligned[row], pieces),
        ),
      )

  def _gallery(self, examples: int, board: TensorBoardWriter | None) -> Gallery:
    options = self._config.review
    if not board:
      return Gallery(thumbnails=options.page)
    # Evenly spaced, since neighbours may have the same prompt.
    panels = range(0, examples, max(1, examples // max(1, options.examples)))
    return Gallery(
      thumbnails=options.page, panels=panels[: options.examples], worst=options.worst
    )


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
