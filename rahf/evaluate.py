"""Evaluation of a split: every example once, every metric, one path for all callers.

Axis letters: B batch, H W map size, T target tokens.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from flax import linen as nn
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict
from tqdm import tqdm

from rahf import checkpoint, losses, sharding
from rahf import config as config_lib
from rahf.data import pipeline, schema
from rahf.data.records import RecordSplit
from rahf.experiment import Experiment, describe, set_up
from rahf.interruption import Interruption
from rahf.losses import LabelSums
from rahf.models.rahf import RAHF
from rahf.scorecard import Prediction, Scorecard, constant_metrics, draw
from rahf.tables import evaluation_tables


class Predictions(NamedTuple):
  """What the model says of a batch, and its errors under teacher forcing.

  `index` is the batch's own: a host has only some rows of it, but all of these.
  """

  index: Int[Array, 'B']
  maps: Float[Array, 'B 2 H W']
  scores: Float[Array, 'B 4']
  keywords: Int[Array, 'B T']
  errors: LabelSums
  counts: LabelSums


class Evaluation(NamedTuple):
  """Metrics by name, and pictures of the first examples."""

  metrics: dict[str, float]
  panels: list[np.ndarray]


class Evaluator:
  """Evaluates parameters of one model on splits of one data set.

  Attributes:
    predict: from (parameters, batch) to Predictions, compiled.
  """

  def __init__(self, config: ConfigDict, experiment: Experiment):
    batch_size = config.eval.batch_size
    sharding.check_batch_size('config.eval.batch_size', batch_size, experiment.mesh)
    self._experiment = experiment
    self._weights = config.loss
    self._batch_size = batch_size
    predict = make_predict(experiment.model, experiment.options.target_length)
    self.predict = jax.jit(predict, out_shardings=sharding.replicated(experiment.mesh))

  def __call__(
    self,
    params: Any,
    split: RecordSplit,
    *,
    review_examples: int = 0,
    check: Callable[[], None] = lambda: None,
  ) -> Evaluation:
    """Evaluates every example of the split once.

    Args:
      review_examples: how many examples to draw.
      check: called for every batch; may raise, to end this early.
    """
    card = Scorecard()
    panels = []
    errors = counts = LabelSums(np.zeros(2), np.zeros(4), np.zeros(()))
    experiment = self._experiment
    batches = pipeline.eval_batches(
      split,
      experiment.tokenizer,
      experiment.options,
      batch_size=self._batch_size,
      host=jax.process_index(),
      hosts=jax.process_count(),
    )
    batches = pipeline.prefetch(
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
        for record, prediction in self._examples(split, found):
          card.add(record, prediction)
          if len(panels) < review_examples:
            panels.append(draw(record, prediction))
          bar.update()
    means = losses.weighted_losses(errors, counts, self._weights)
    metrics = {f'loss/{name}': float(v) for name, v in means._asdict().items()}
    return Evaluation(metrics | card.metrics(), panels)

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
          found.maps[row], found.scores[row], keywords.labels, keywords.unplaced
        ),
      )


def make_predict(
  model: RAHF, length: int
) -> Callable[[Any, schema.Batch], Predictions]:
  """Returns the inference step: maps, scores, greedy keywords, and the errors."""

  def predict(params: Any, batch: schema.Batch) -> Predictions:
    def run(method, *args, **kwargs):
      return model.apply({'params': params}, *args, method=method, **kwargs)

    with nn.logical_axis_rules(sharding.LOGICAL_AXIS_RULES):
      fused = run(RAHF.encode, batch.image, batch.text, train=False)
      outputs = run(RAHF.read, fused, batch.target, train=False)
      keywords = run(RAHF.decode_greedily, fused, length)
    return Predictions(
      batch.index,
      outputs.maps,
      outputs.scores,
      keywords,
      losses.sum_errors(outputs, batch),
      losses.count_labels(batch),
    )

  return predict


def report(
  workdir: epath.Path,
  experiment: Experiment,
  split: RecordSplit,
  step: int,
  metrics: dict[str, float],
  check: Callable[[], None] = lambda: None,
) -> str:
  """Writes eval/<split>-<step>.json and .md; returns the tables.

  The constant predictor's row depends on the data alone, so it is computed once and
  kept in eval/<split>-constant.json.

  Args:
    check: called for every record that is read for it; may raise, to end this early.
  """
  folder = workdir / 'eval'
  folder.mkdir(parents=True, exist_ok=True)
  kept = folder / f'{split.name}-constant.json'
  if not kept.exists():
    values = constant_metrics(experiment.split('train'), split, check)
    kept.write_text(_to_json(values))
  stored = json.loads(kept.read_text())
  constant = {name: np.nan if v is None else v for name, v in stored.items()}
  title = f'{experiment.data_name}, {split.name} split, step {step}'
  tables = evaluation_tables(metrics, constant, title=title)
  (folder / f'{split.name}-{step}.md').write_text(tables)
  (folder / f'{split.name}-{step}.json').write_text(_to_json(metrics))
  return tables


def _to_json(metrics: dict[str, float]) -> str:
  """JSON has no NaN: what is undefined is null."""
  values = {k: float(v) if np.isfinite(v) else None for k, v in metrics.items()}
  return json.dumps(values, indent=2) + '\n'


def evaluate(
  config: ConfigDict, workdir: epath.Path, interruption: Interruption
) -> None:
  """Evaluates the newest checkpoint on `config.eval.split` and prints the tables.

  Raises:
    ValueError: there is no checkpoint, or it was trained with another config.
    Interrupted: SIGTERM or Ctrl-C came.
  """
  config_lib.validate(config)
  checkpoint.check_workdir(workdir, config)
  step = None
  if (workdir / 'checkpoints').exists():
    checkpoints = checkpoint.Checkpoints(workdir)
    step = checkpoints.latest_step()
  if step is None:
    raise ValueError(
      f'{workdir} has no checkpoint to evaluate; train first, with the same --workdir'
    )
  with interruption.raising():
    experiment = set_up(config)
    split = experiment.split(config.eval.split)
    print(describe(experiment, [split]))
    evaluator = Evaluator(config, experiment)
  state = checkpoints.restore(step, experiment.states.abstract)
  checkpoints.close()
  with jax.set_mesh(experiment.mesh):
    found = evaluator(state.params, split, check=interruption.check)
  metrics, check = found.metrics, interruption.check
  print(f'\n{report(workdir, experiment, split, step, metrics, check)}')
  print(f'Written to {workdir}/eval/{split.name}-{step}.json and .md')
