"""The training loop: data, step, log, save, evaluate, in this order.

Steps are the clock. Step n draws its randomness from (seed, n) and its batch from
(seed, n), so that a run that was stopped goes on as if it had not been.
"""

import math
import time

import jax
from etils import epath
from ml_collections import ConfigDict
from tqdm import tqdm

from rahf import checkpoint, sharding
from rahf.data import pipeline
from rahf.evaluate import Evaluator, Interrupted, report
from rahf.experiment import Experiment, set_up
from rahf.interruption import Interruption
from rahf.journal import Journal
from rahf.review import TensorBoardWriter
from rahf.state import TrainState
from rahf.step import Metrics, make_train_step


class NonFiniteLossError(ValueError):
  """The loss is NaN or infinite; the last checkpoint is from before."""


def train(config: ConfigDict, workdir: epath.Path) -> None:
  """Trains to `config.train.steps`, or goes on from the newest checkpoint.

  SIGTERM saves a checkpoint and returns.

  Raises:
    ValueError: a setting does not fit, the directory holds another run, or the
      loss is no longer finite.
  """
  with Interruption() as interruption:
    experiment = set_up(config)
    sharding.check_batch_size(
      'config.train.batch_size',
      config.train.batch_size,
      experiment.mesh,
      config.train.accumulate,
    )
    checkpoint.claim_workdir(workdir, config)
    with TensorBoardWriter(workdir / 'tensorboard') as board:
      trainer = Trainer(config, workdir, experiment, interruption, board)
      try:
        with jax.set_mesh(experiment.mesh):
          trainer.run()
      finally:
        trainer.close()


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
    interruption: Interruption,
    board: TensorBoardWriter,
  ):
    self._config = config
    self._workdir = workdir
    self._experiment = experiment
    self._interruption = interruption
    self._board = board
    self._checkpoints = checkpoint.Checkpoints(workdir, config.train.keep_checkpoints)
    self._evaluator = Evaluator(config, experiment)
    self.step, self.state = self._resume()
    self._journal = Journal(workdir, self.step)
    shardings = experiment.states.shardings
    replicated = sharding.replicated(experiment.mesh)
    self._train_step = jax.jit(
      make_train_step(
        experiment.model,
        experiment.optimizer,
        config.loss,
        accumulate=config.train.accumulate,
      ),
      in_shardings=(
        shardings,
        sharding.batch_sharding(experiment.mesh),
        replicated,
      ),
      out_shardings=(shardings, replicated),
      donate_argnums=0,
    )

  def run(self) -> None:
    """Trains, evaluates and saves until the last step or an interruption."""
    try:
      self._evaluate_if_due()
      self._train()
      if not self._interruption.requested:
        self._evaluate_if_due()
        self._evaluate_finally()
    except Interrupted:
      pass
    if self._interruption.requested:
      if self.step:
        self._save()
      print(
        f'Interrupted after step {self.step}; the same command with --workdir='
        f'{self._workdir} goes on from there.'
      )

  def close(self) -> None:
    """Waits for the checkpoint that is being written."""
    self._checkpoints.close()

  def _resume(self) -> tuple[int, TrainState]:
    """Restores the newest checkpoint, or makes a fresh state."""
    step = self._checkpoints.latest_step()
    if step is None:
      return 0, self._experiment.states.make(self._config.seed)
    print(f'Resuming {self._workdir} at step {step}.')
    return step, self._checkpoints.restore(step, self._experiment.states.abstract)

  def _train(self) -> None:
    """Runs the remaining steps; evaluates and saves on the way."""
    config = self._config.train
    key = jax.random.key(self._config.seed + 1)
    batches = pipeline.train_batches(
      self._experiment.split('train'),
      self._experiment.tokenizer,
      self._experiment.options,
      batch_size=config.batch_size,
      seed=self._config.seed,
      start_step=self.step,
      host=jax.process_index(),
      hosts=jax.process_count(),
    )
    batches = pipeline.prefetch(
      batches, lambda batch: sharding.put_batch(batch, self._experiment.mesh)
    )
    bar = tqdm(total=config.steps, initial=self.step, desc='train', unit='step')
    with bar:
      since, clock = self.step, time.perf_counter()
      before: Metrics | None = None
      while self.step < config.steps and not self._interruption.requested:
        self.state, metrics = self._train_step(self.state, next(batches), key)
        # The device works on this step while the host looks at the one before.
        if before is not None:
          check_finite(self.step, before)
        before = metrics
        self.step += 1
        bar.update()
        if self.step % config.log_every == 0 or self.step == config.steps:
          check_finite(self.step, metrics)
          now = time.perf_counter()
          self._log(metrics, (now - clock) / (self.step - since), bar)
          since, clock = self.step, now
        if self.step % config.checkpoint_every == 0 or self.step == config.steps:
          check_finite(self.step, metrics)
          self._save()
        started = time.perf_counter()
        self._evaluate_if_due()
        clock += time.perf_counter() - started
      if before is not None:
        check_finite(self.step, before)
    batches.close()

  def _log(self, metrics: Metrics, seconds: float, bar: tqdm) -> None:
    """Writes the losses of this step and the speed since the last log."""
    values = {name: float(value) for name, value in metrics.items()}
    rate = self._config.train.batch_size / seconds
    values |= {'step_seconds': seconds, 'examples_per_second': rate}
    self._journal.append(self.step, 'train', values)
    self._board.scalars(self.step, 'train', values)
    losses = {n.removeprefix('loss/'): v for n, v in values.items() if '/' in n}
    shown = ' '.join(f'{name} {value:.4g}' for name, value in losses.items())
    bar.set_postfix_str(f'{rate:.0f} examples/s, loss: {shown}')

  def _save(self) -> None:
    self._checkpoints.save(self.step, self.state)

  def _evaluate_if_due(self) -> None:
    """Evaluates every so many steps, also when a resumed run had not got to it."""
    options = self._config.eval
    if self.step and self.step % options.every == 0:
      self._evaluate(options.split, options.review_examples)

  def _evaluate_finally(self) -> None:
    tables = self._evaluate(self._config.eval.final_split, 0)
    if tables:
      print(f'\n{tables}\nWritten to {self._workdir}/eval.')

  def _evaluate(self, split_name: str, review_examples: int) -> str:
    """Evaluates one split and writes every report of it, unless it is there.

    Raises:
      Interrupted: SIGTERM came; what was computed is dropped.
    """
    path = self._workdir / 'eval' / f'{split_name}-{self.step}'
    if path.with_suffix('.json').exists():
      return path.with_suffix('.md').read_text()
    split = self._experiment.split(split_name)
    found = self._evaluator(
      self.state.params,
      split,
      review_examples=review_examples,
      should_stop=lambda: self._interruption.requested,
    )
    tables = report(self._workdir, self._experiment, split, self.step, found.metrics)
    self._journal.append(self.step, split_name, found.metrics)
    self._board.scalars(self.step, split_name, found.metrics)
    self._board.panels(self.step, f'{split_name} examples', found.panels)
    self._board.text(self.step, split_name, tables)
    return tables


def check_finite(step: int, metrics: Metrics) -> None:
  """Raises NonFiniteLossError if the loss of the given step is NaN or infinite."""
  losses = {n: float(v) for n, v in metrics.items() if n.startswith('loss/')}
  if not math.isfinite(losses['loss/total']):
    raise NonFiniteLossError(
      f'the loss of step {step} is not finite ({losses}); nothing was saved from it. '
      'Lower config.optimizer.learning_rate or config.optimizer.clip_norm and go on '
      'from the last checkpoint in a new --workdir, or look at the data with '
      '`python -m rahf.data verify`'
    )
