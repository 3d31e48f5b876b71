"""Evaluation of a split: every example once, every metric, one path for all callers.

Axis letters: B batch, H W map size, L prompt tokens, T target tokens.
"""

import sys

if __name__ == '__main__':
  # python -m rahf.evaluate compare: it needs nothing of what follows.
  from rahf.evaluation.compare_command import main

  sys.exit(main())

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict
from tqdm import tqdm

from rahf import config as config_lib
from rahf.data import schema
from rahf.data.pipeline.batches import eval_batches
from rahf.data.pipeline.prefetch import prefetch
from rahf.data.storage.records import RecordSplit
from rahf.data.tokenizer import at_word_ends
from rahf.errors import InputError
from rahf.evaluation import samples
from rahf.evaluation.samples import Evaluation, Sample
from rahf.evaluation.score_example import Prediction, score
from rahf.inference.step import judge_words
from rahf.models.rahf import RAHF
from rahf.reports import report
from rahf.reports.gallery import Gallery
from rahf.reports.tensorboard import TensorBoardWriter
from rahf.runtime import distributed, sharding
from rahf.runtime.preemption import Interruption
from rahf.training import losses
from rahf.training.batch_spec import batch_shapes
from rahf.training.losses import LabelSums
from rahf.training.setup import Experiment, describe, set_up
from rahf.workdir import checkpoint, ownership


class Predictions(NamedTuple):
  """What the model says of a batch, and its errors under teacher forcing.

  `index` is the batch's own: a process has only some rows of it, but all of these.
  """

  index: Int[Array, 'B']
  maps: Float[Array, 'B 2 H W']
  scores: Float[Array, 'B 4']
  keywords: Int[Array, 'B T']
  p_misaligned: Float[Array, 'B L']
  truncated: Bool[Array, 'B']
  errors: LabelSums
  counts: LabelSums


class Evaluator:
  """Evaluates parameters of one model on splits of one data set.

  Attributes:
    predict: from (parameters, batch) to Predictions.
  """

  def __init__(self, config: ConfigDict, experiment: Experiment):
    batch_size = config.eval.batch_size
    sharding.check_batch_size('config.eval.batch_size', batch_size, experiment.mesh)
    self._experiment = experiment
    self._weights = config.loss
    self._review = config.review
    self._batch_size = batch_size
    predict = make_predict(
      experiment.model,
      config.keywords,
      experiment.tokenizer.mark_ids,
      experiment.options.target_length,
      experiment.gather,
    )
    self.predict = jax.jit(predict, out_shardings=sharding.replicated(experiment.mesh))

  def compile(self) -> None:
    """Compiles `predict`, once, which its first call would do otherwise."""
    experiment = self._experiment
    rows = sharding.batch_sharding(experiment.mesh)
    batch = batch_shapes(experiment.config, self._batch_size, rows)
    lowered = self.predict.lower(experiment.states.abstract.params, batch)
    self.predict = lowered.compile()

  def __call__(
    self,
    params: Any,
    split: RecordSplit,
    *,
    threshold: float | None = None,
    gallery: Gallery | None = None,
    check: Callable[[], None] = lambda: None,
  ) -> Evaluation:
    """Evaluates every example of the split once.

    Args:
      threshold: of constrained decoding; None takes the best on this split.
      gallery: what is to be looked at is kept there.
      check: called for every batch; may raise, to end this early.
    """
    scored: list[Sample] = []
    truncated = 0
    errors = counts = LabelSums(np.zeros(2), np.zeros(4), np.zeros(()))
    experiment = self._experiment
    batches = eval_batches(
      split,
      experiment.tokenizer,
      experiment.options,
      batch_size=self._batch_size,
      rows=sharding.process_rows(self._batch_size, experiment.mesh),
    )
    batches = prefetch(
      batches, lambda batch: sharding.put_batch(batch, experiment.mesh)
    )
    bar = tqdm(
      total=len(split),
      desc=f'evaluate {split.name}',
      unit='example',
      leave=False,
      disable=None,
    )
    with bar, contextlib.closing(batches):
      for batch in batches:
        check()
        found = jax.tree.map(np.asarray, self.predict(params, batch))
        errors = jax.tree.map(np.add, errors, found.errors)
        counts = jax.tree.map(np.add, counts, found.counts)
        truncated += int(found.truncated.sum())
        for record, prediction in self._examples(split, found):
          scored.append(score(record, prediction))
          if gallery:
            gallery.add(record, prediction, scored[-1])
          bar.update()
    means = losses.weighted_losses(errors, counts, self._weights)
    metrics = {f'loss/{name}': float(v) for name, v in means._asdict().items()}
    metrics |= samples.metrics(scored, threshold)
    metrics['keywords/truncated'] = truncated
    return Evaluation(metrics, scored)

  def evaluate_and_report(
    self,
    params: Any,
    workdir: epath.Path,
    step: int,
    split_name: str,
    threshold: float | None,
    stop: distributed.StopSignal,
    board: TensorBoardWriter | None = None,
  ) -> tuple[dict[str, float], str]:
    """Evaluates a split; the first process writes what is kept of it.

    Returns:
      All metrics, and the tables, '' in other processes.

    Raises:
      Interrupted: SIGTERM came; what was computed is dropped.
    """
    split = self._experiment.split(split_name)
    gallery, review = None, self._review
    if distributed.is_first():
      # At even distances: the first ones may all be of one prompt.
      panels = range(0, len(split), max(1, len(split) // max(1, review.examples)))
      looked_at = dict(panels=panels[: review.examples], worst=review.worst)
      gallery = Gallery(thumbnails=review.page, **(looked_at if board else {}))
    evaluation = self(
      params, split, threshold=threshold, gallery=gallery, check=stop.check
    )
    if gallery is None:
      return evaluation.metrics, ''
    tables = report.write(
      workdir / 'eval',
      evaluation,
      gallery,
      data_name=self._experiment.data_name,
      train=self._experiment.split('train'),
      split=split,
      step=step,
      check=stop.check_here,
    )
    if board:
      report.show(board, step, split_name, evaluation, gallery, tables)
    return evaluation.metrics, tables

  def _examples(
    self, split: RecordSplit, found: Predictions
  ) -> Iterator[tuple[schema.Record, Prediction]]:
    """Pairs the records of a batch, without its padding, with their predictions."""
    for row, index in enumerate(found.index):
      if index < 0:
        continue
      record = split[int(index)]
      tokenizer = self._experiment.tokenizer
      pieces = tokenizer.encode(record.prompt)
      keywords = tokenizer.read_marks(pieces, found.keywords[row])
      yield (
        record,
        Prediction(
          found.maps[row],
          found.scores[row],
          keywords.labels,
          keywords.unplaced,
          at_word_ends(found.p_misaligned[row], pieces),
        ),
      )


def make_predict(
  model: RAHF,
  options,
  mark_ids: tuple[int, ...],
  length: int,
  gather: Callable[[Any], Any] = lambda params: params,
) -> Callable[[Any, schema.Batch], Predictions]:
  """Returns the inference step: maps, scores, keywords both ways, and the errors.

  Args:
    options: `config.keywords`.
    mark_ids: the pieces of the mark.
    length: of a target.
    gather: makes of the state's parameters what the model is applied with.
  """

  def predict(params: Any, batch: schema.Batch) -> Predictions:
    params = gather(params)

    def run(method, *args, **kwargs):
      return model.apply({'params': params}, *args, method=method, **kwargs)

    with nn.logical_axis_rules(sharding.LOGICAL_AXIS_RULES):
      fused = run(RAHF.encode, batch.image, batch.text, train=False)
      outputs = run(RAHF.read, fused, batch.target, train=False)
      if options.decoder == 'beam':
        keywords = run(RAHF.decode_beam, fused, length, options.beams)
      else:
        keywords = run(RAHF.decode_greedily, fused, length)
      p_misaligned = judge_words(
        model,
        params,
        fused,
        batch.text,
        batch.word_end,
        decoder=options.decoder,
        mark_ids=mark_ids,
        length=length,
      )
    return Predictions(
      batch.index,
      outputs.maps,
      outputs.scores,
      keywords,
      p_misaligned,
      batch.truncated,
      losses.sum_errors(outputs, batch),
      losses.count_labels(batch),
    )

  return predict


def evaluate(
  config: ConfigDict, workdir: epath.Path, interruption: Interruption
) -> None:
  """Evaluates the newest checkpoint on `config.eval.split` and prints the tables.

  Raises:
    InputError: there is no checkpoint, it was trained with another config, or another
      process evaluates in the directory.
    Interrupted: SIGTERM or Ctrl-C came.
  """
  config_lib.validate(config)
  ownership.check_workdir(workdir, config)
  step = None
  if (workdir / 'checkpoints').exists():
    checkpoints = checkpoint.Checkpoints(workdir)
    step = checkpoints.latest_step()
  if step is None:
    raise InputError(
      f'{workdir} has no checkpoint to evaluate; train first, with the same --workdir'
    )
  with distributed.interruptible(interruption):
    experiment = set_up(config)
    names = dict.fromkeys([config.keywords.threshold_split, config.eval.split])
    # Opened now, since a missing split should not show after the first.
    splits = {name: experiment.split(name) for name in names}
    print(describe(experiment, [splits[config.eval.split]]))
    evaluator = Evaluator(config, experiment)
  state = checkpoints.restore(step, experiment.states.abstract)
  checkpoints.close()
  stop = distributed.StopSignal(interruption, experiment.mesh)

  def evaluate_split(name: str) -> str:
    threshold = report.tuned_threshold(
      workdir, config.keywords, name, step, evaluate_split
    )
    _, tables = evaluator.evaluate_and_report(
      state.params, workdir, step, name, threshold, stop
    )
    # Processes that leave meanwhile would take the first with them.
    distributed.wait_for_all()
    return tables

  with jax.set_mesh(experiment.mesh), ownership.held(workdir / 'eval'):
    tables = evaluate_split(config.eval.split)
  print(f'\n{tables}')
  print(f'Written to {workdir}/eval/{config.eval.split}-{step}.*')
