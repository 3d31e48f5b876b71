"""Evaluates a PickScore on the pairs of a split."""

import contextlib
import json
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from tqdm import tqdm

from rahf.data.pipeline.prefetch import prefetch
from rahf.data.preferences import pair_tally
from rahf.data.preferences.pair_batches import PairReader
from rahf.data.preferences.pair_truth import read_truth
from rahf.errors import InputError
from rahf.evaluation.preference_accuracy import JudgedPairs
from rahf.evaluation.preference_tables import PreferenceReport, make_report
from rahf.evaluation.score_example import DIVERGED
from rahf.fileio import atomic_write, strict_json
from rahf.reports.tensorboard import TensorBoardWriter
from rahf.runtime import distributed, sharding
from rahf.runtime.distributed import StopSignal
from rahf.tasks.jitted_eval_step import JittedEvalStep
from rahf.training.preference_losses import PairScores, pair_losses
from rahf.training.setup import Setup
from rahf.training.task import Variables

# The split on which the threshold for ties is chosen.
THRESHOLD_SPLIT = 'dev'
THRESHOLD = 'accuracy/threshold'


class PreferenceEvaluator:
  """Compares a model's preferences with people's; a `training.task.Evaluator`."""

  headlines = ('accuracy/ties_half', 'accuracy/ties_dropped', 'loss/total')

  def __init__(self, setup: Setup, data: Any):
    """Jits the step; `data` is a `preference_session.PairData`."""
    self._setup, self._data = setup, data
    self._batch_size = setup.config.eval.batch_size
    step = setup.task.make_eval_step(setup.gather)
    self._eval_step = JittedEvalStep(setup, step)
    # By split; kept, as each names damaged pairs once.
    self._readers: dict[str, PairReader] = {}

  def compile(self) -> None:
    """Compiles the step ahead of its first call."""
    self._eval_step.compile()

  def splits_before(self, split: str) -> Sequence[str]:
    """Returns the split that the threshold is chosen on."""
    return () if split == THRESHOLD_SPLIT else (THRESHOLD_SPLIT,)

  def evaluate(
    self,
    variables: Variables,
    workdir: epath.Path,
    step: int,
    split: str,
    stop: StopSignal,
    board: TensorBoardWriter | None = None,
  ) -> tuple[dict[str, float], str]:
    """Evaluates a split; see `training.task.Evaluator`."""
    scored = self._score(variables, split, stop)
    folder, threshold = workdir / 'eval', None
    if self.splits_before(split):
      threshold = self._read_threshold(folder, step)
    report, loss = self._report(scored, split, threshold)
    metrics = {'loss/total': loss, **report.metrics()}
    if not distributed.is_first():
      return metrics, ''
    tables = report.text(f'{self._data.names[split]}, step {step}')
    folder.mkdir(exist_ok=True)
    with distributed.interruptible(stop.interruption):
      atomic_write.write(folder / f'{split}-{step}.json', _to_json(metrics))
      atomic_write.write(folder / f'{split}-{step}.md', tables)
    if board:
      board.scalars(step, split, metrics)
      board.text(step, split, tables)
    return metrics, tables

  def _read_threshold(self, folder: epath.Path, step: int) -> tuple[float, str]:
    """Returns the threshold for ties, and the split that it was chosen on."""
    path = folder / f'{THRESHOLD_SPLIT}-{step}.json'
    metrics = strict_json.read_own(path, 'delete it and evaluate again')
    return metrics[THRESHOLD], self._data.names[THRESHOLD_SPLIT]

  def _score(self, variables: Variables, name: str, stop: StopSignal) -> PairScores:
    """Returns the scores of all pairs of a split, on the host."""
    if name not in self._readers:
      self._readers[name] = self._data.reader(name)
    reader, mesh = self._readers[name], self._setup.mesh
    rows = sharding.process_rows(self._batch_size, mesh)
    batches = reader.eval_batches(batch_size=self._batch_size, rows=rows)
    batches = prefetch(batches, lambda batch: sharding.put_batch(batch, mesh))
    found = []
    bar = tqdm(
      total=len(reader.split), desc=f'evaluate {name}', leave=False, disable=None
    )
    with bar, contextlib.closing(batches):
      for batch in batches:
        stop.check()
        found.append(jax.tree.map(np.asarray, self._eval_step(variables, batch)))
        bar.update(int(np.sum(found[-1].index >= 0)))
    whole = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
    return jax.tree.map(lambda values: values[whole.index >= 0], whole)

  def _report(
    self, scored: PairScores, split: str, threshold: tuple[float, str] | None
  ) -> tuple[PreferenceReport, float]:
    """Returns the accuracies and the loss of the pairs that could be read."""
    used = scored.weight > 0
    if not used.any():
      raise InputError(
        f'none of the {len(used)} pairs of {self._data.names[split]} can be evaluated: '
        'none has a valid label and two readable images; `python -m rahf.data pairs` '
        'says what the files contain'
      )
    if not np.isfinite(scored.scores[used]).all():
      raise InputError('the scores are NaN or infinite: ' + DIVERGED)
    tables = self._data.split(split).tables(['caption', 'model_0', 'model_1'])
    described = [row for table in tables for row in table.to_pylist()]
    rows = [described[index] for index in scored.index[used]]
    pairs = JudgedPairs(
      scored.scores[used].astype(np.float64),
      scored.preference[used].astype(np.float64),
      [row['caption'] or '' for row in rows],
      [(row['model_0'] or '', row['model_1'] or '') for row in rows],
    )
    report = make_report(
      pairs,
      problems=pair_tally.count(scored.problem.tolist()),
      labelled_only=self._data.labelled_only,
      threshold=threshold,
      split=self._data.names[split],
      ceilings=read_truth(self._data.folder).ceilings.get(self._data.names[split], {}),
    )
    losses = pair_losses(scored.scores[used], scored.preference[used])
    return report, float(np.average(losses, weights=scored.weight[used]))


def _to_json(metrics: dict[str, float]) -> str:
  """Returns JSON, which has no NaN."""
  known = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
  return json.dumps(known) + '\n'
