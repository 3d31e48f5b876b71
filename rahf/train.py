"""The training loop: data, step, log, save, evaluate, in this order.

Steps are the clock. Step n draws its randomness from (seed, n) and its batch from
(seed, n), so that a run that was stopped goes on as if it had not been.
"""

import contextlib

import jax
from etils import epath
from ml_collections import ConfigDict
from tqdm import tqdm

from rahf import checkpoint, distributed, report, sharding, work_directory
from rahf import config as config_lib
from rahf.checksums import checksums
from rahf.data import dataset, pipeline
from rahf.data.prefetch import prefetch
from rahf.evaluate import Evaluator
from rahf.experiment import Experiment, describe, set_up
from rahf.finite import FiniteCheck
from rahf.interruption import Interrupted, Interruption
from rahf.journal import Journal
from rahf.pace import Pace
from rahf.pretrained import loading
from rahf.pretrained.card import model_card
from rahf.review import TensorBoardWriter
from rahf.state import TrainState
from rahf.step import Metrics
from rahf.tree import by_path

# In metrics.jsonl: how many steps were left out so far, at each that is.
SKIPPED = 'skipped'
# Printed after each evaluation; everything is in metrics.jsonl and TensorBoard.
HEADLINES = ('loss/total', 'overall/srcc', 'implausibility/cc', 'keywords/f1')


def train(config: ConfigDict, workdir: epath.Path, interruption: Interruption) -> None:
  """Trains to `config.train.steps`, or goes on from the newest checkpoint.

  On SIGTERM, to any of its processes, it saves a checkpoint and returns.

  Raises:
    InputError: a setting does not fit, the directory holds another run, or the
      loss is no longer finite.
    Interrupted: SIGTERM or Ctrl-C came before training was set up.
  """
  config_lib.validate(config)
  work_directory.check_workdir(workdir, config)
  with distributed.interruptible(interruption):
    experiment = set_up(config)
    experiment.check_train_batch()
    # Opened now, since a missing split should not show after hours.
    names = dict.fromkeys(
      [
        'train',
        config.eval.split,
        config.keywords.threshold_split,
        config.eval.final_split,
      ]
    )
    print(describe(experiment, [experiment.split(name) for name in names]))
    evaluator = Evaluator(config, experiment)
    # Before the directory is claimed: a mistake in config.init can still be mended.
    # As the first sees it: a shared folder may look different to others for a while.
    started = bool(distributed.from_first(work_directory.is_started(workdir)))
    plan = None if started else plan_weights(config, experiment)
  with (
    work_directory.claimed(workdir, config, started),
    TensorBoardWriter(workdir / 'tensorboard') as board,
  ):
    trainer = Trainer(config, workdir, experiment, plan, evaluator, interruption, board)
    try:
      with jax.set_mesh(experiment.mesh):
        trainer.run()
    finally:
      trainer.close()


def plan_weights(config: ConfigDict, experiment: Experiment) -> loading.Plan:
  """Says where each parameter of a new run comes from; reads no arrays.

  Raises:
    InputError: what config.init names cannot be read or does not fit the model.
  """
  plan = loading.plan(
    loading.open_sources(config.init, experiment.model.config.vit),
    by_path(experiment.states.abstract.params),
    experiment.model.config,
  )
  if plan.sources:
    print(plan.report())
  return plan


class Trainer:
  """One run in one work directory.

  Attributes:
    state: the training state behind the last finished step.
    step: how many steps are finished, on the host.
  """

  def __init__(
    self,
    config: ConfigDict,
    workdir: epath.Path,
    experiment: Experiment,
    plan: loading.Plan | None,
    evaluator: Evaluator,
    interruption: Interruption,
    board: TensorBoardWriter,
  ):
    self._config = config
    self._workdir = workdir
    self._experiment = experiment
    self._stop = distributed.StopSignal(interruption, experiment.mesh)
    self._board = board
    self._checkpoints = checkpoint.Checkpoints(workdir, config.train.keep_checkpoints)
    self._evaluator = evaluator
    self.step, self.state = self._resume() if plan is None else self._begin(plan)
    # One reader and writer: it is cut where the run goes on.
    self._journal = Journal(workdir, self.step) if distributed.is_first() else None
    skipped = self._journal.count(SKIPPED) if self._journal else 0
    self._finite = FiniteCheck(
      config.train.max_skipped, int(distributed.from_first(skipped))
    )
    self._train_step = experiment.train_step()

  def run(self) -> None:
    """Trains, evaluates and saves until the last step or an interruption."""
    # Signals are answered between batches: no compilation must keep them waiting then.
    self._evaluator.compile()
    checksums(self.state)
    try:
      self._evaluate_if_due()
      self._train()
      if not self._stop.received:
        self._evaluate_if_due()
        self._evaluate_finally()
    except Interrupted:
      pass
    if self._stop.received:
      if self.step:
        self._save()
      print(f'Interrupted after step {self.step}; the same command goes on from there.')

  def close(self) -> None:
    """Waits for the checkpoint that is being written."""
    self._checkpoints.close()

  def _begin(self, plan: loading.Plan) -> tuple[int, TrainState]:
    """Makes a fresh state, from the weights that config.init names if any."""
    states = self._experiment.states
    # Fresh ones first: making them takes more memory than they have.
    params = states.fresh(self._config.seed, plan.fresh) | plan.read()
    if distributed.is_first():
      card = model_card(self._experiment.model.config, plan)
      (self._workdir / 'model_card.md').write_text(card)
      # Where the data are not, such as where the model is exported.
      tokenizer = self._experiment.tokenizer.to_bytes()
      (self._workdir / dataset.TOKENIZER_FILE).write_bytes(tokenizer)
    return 0, states.start(params)

  def _resume(self) -> tuple[int, TrainState]:
    """Restores the newest checkpoint."""
    step, state = self._checkpoints.restore_newest(self._experiment.states.abstract)
    print(f'Resuming {self._workdir} at step {step}.')
    return step, state

  def _train(self) -> None:
    """Runs the remaining steps; evaluates and saves on the way."""
    config = self._config.train
    key = jax.random.key(self._config.seed + 1)
    batches = pipeline.train_batches(
      self._experiment.training_splits(),
      self._experiment.tokenizer,
      self._experiment.options,
      batch_size=config.batch_size,
      seed=self._config.seed,
      start_step=self.step,
      weights=self._experiment.weights,
      rows=sharding.process_rows(config.batch_size, self._experiment.mesh),
    )
    batches = prefetch(
      batches, lambda batch: sharding.put_batch(batch, self._experiment.mesh)
    )
    bar = tqdm(
      total=config.steps,
      initial=self.step,
      bar_format='train {percentage:3.0f}% |{bar}| {n}/{total} '
      '[{elapsed}<{remaining}{postfix}]',
      disable=None,
    )
    with bar, contextlib.closing(batches):
      first, pace = self.step, Pace(self.step)
      before: Metrics | None = None
      while self.step < config.steps and not self._stop.poll():
        with pace.waiting():
          batch = next(batches)
        self.state, metrics = self._train_step(self.state, batch, key)
        # The device works on this step while the host looks at the one before.
        if before is not None:
          self._check(before)
        before = metrics
        self.step += 1
        bar.update()
        if self.step == first + 1:
          # The speed is without compilation.
          jax.block_until_ready(metrics)
          pace.restart(self.step)
        if self._is_due(config.log_every):
          self._check(metrics)
          self._log(metrics, pace.read(self.step, config.batch_size), bar)
        if self._is_due(config.checkpoint_every):
          self._check(metrics)
          with pace.paused():
            self._save()
        if self._is_due(self._config.eval.every):
          self._check(metrics)
          with pace.paused():
            self._evaluate_if_due()
      if before is not None:
        self._check(before)

  def _check(self, metrics: Metrics) -> None:
    """Stops the run at a step that is not finite, or notes that it was left out."""
    if self._finite(self.step, metrics) and self._journal:
      self._journal.append(self.step, 'train', {SKIPPED: self._finite.skipped})

  def _is_due(self, every: int) -> bool:
    """Returns whether what happens every so many steps, and at the end, is due."""
    return self.step % every == 0 or self.step == self._config.train.steps

  def _log(self, metrics: Metrics, speed: dict[str, float], bar: tqdm) -> None:
    """Writes the losses of this step, and the speed of those since the last time."""
    if not distributed.is_first():
      return
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    shown = (
      f'loss {values["loss/total"]:.4g} (maps {values["loss/heatmap"]:.3g}, '
      f'scores {values["loss/score"]:.3g}, text {values["loss/sequence"]:.3g})'
    )
    if speed:
      shown = f'{speed["examples_per_second"]:.0f} examples/s, {shown}'
    values |= speed
    self._journal.append(self.step, 'train', values)
    self._board.scalars(self.step, 'train', values)
    bar.set_postfix_str(shown)
    if bar.disable:  # Not a terminal.
      print(f'step {self.step}/{self._config.train.steps}: {shown}', flush=True)

  def _save(self) -> None:
    best = self._best_step() if distributed.is_first() else None
    found = int(distributed.from_first(-1 if best is None else best))
    self._checkpoints.save(self.step, self.state, None if found < 0 else found)

  def _best_step(self) -> int | None:
    """Returns the step whose evaluation was the best so far, if that is asked for."""
    metric = self._config.train.keep_best
    if not metric:
      return None
    lowest = metric.startswith('loss/')
    return self._journal.best(self._config.eval.split, metric, lowest=lowest)

  def _evaluate_if_due(self) -> None:
    """Evaluates every so many steps, also when a resumed run had not got to it."""
    options = self._config.eval
    if self.step and self.step % options.every == 0:
      self._evaluate(options.split)

  def _evaluate_finally(self) -> None:
    tables = self._evaluate(self._config.eval.final_split)
    if tables:
      print(f'\n{tables}\nWritten to {self._workdir}/eval.')

  def _evaluate(self, split_name: str) -> str:
    """Evaluates one split and writes every report of it, unless that was done.

    Raises:
      Interrupted: SIGTERM came; what was computed is dropped.
    """
    tables = self._workdir / 'eval' / f'{split_name}-{self.step}.md'
    done = distributed.is_first() and (
      self._journal.has(self.step, split_name) and tables.exists()
    )
    if distributed.from_first(done):
      return tables.read_text() if done else ''
    threshold = report.tuned_threshold(
      self._workdir, self._config.keywords, split_name, self.step, self._evaluate
    )
    metrics, text = self._evaluator.evaluate_and_report(
      self.state.params,
      self._workdir,
      self.step,
      split_name,
      threshold,
      self._stop,
      self._board,
    )
    if distributed.is_first():
      # Last: a run that is killed before this line does it all again.
      self._journal.append(self.step, split_name, metrics)
      shown = ', '.join(f'{name} {metrics[name]:.4g}' for name in HEADLINES)
      if split_name == self._config.eval.split and self._best_step() == self.step:
        shown += f'; the best {self._config.train.keep_best} so far'
      tqdm.write(f'{split_name}, step {self.step}: {shown}')
    # Processes that leave meanwhile would take the first with them.
    distributed.wait_for_all()
    return text
