"""The training loop: batch, step, log, save, evaluate, in this order.

Step n takes its batch and its randomness from (seed, n), so that a run that was stopped
continues exactly as it would have without the stop. What a run consists of, in the
order in which it is made:

  make_task   the model and its loss
  set_up      mesh, optimizer, shapes and shardings of the state
  task.open   data, evaluation, initial weights: a Session
  Trainer     the loop
"""

import contextlib
import math

import jax
from etils import epath
from ml_collections import ConfigDict
from tqdm import tqdm

from rahf.data.pipeline.prefetch import prefetch
from rahf.errors import InputError
from rahf.pretrained.loading import Plan
from rahf.reports.tensorboard import TensorBoardWriter
from rahf.runtime import distributed, sharding
from rahf.runtime.preemption import Interrupted, Interruption
from rahf.runtime.tree import by_path
from rahf.tasks import make_task
from rahf.training.nan_guard import FiniteCheck
from rahf.training.setup import Setup, set_up
from rahf.training.state import TrainState
from rahf.training.step_timer import StepTimer
from rahf.training.task import Evaluator, Session
from rahf.training.train_step import Metrics
from rahf.workdir import ownership
from rahf.workdir.checkpoint import Checkpoints
from rahf.workdir.checksums import checksums
from rahf.workdir.metrics_log import MetricsLog

# In metrics.jsonl: the number of skipped steps so far, written at each skipped step.
SKIPPED = 'skipped'


def train(config: ConfigDict, workdir: epath.Path, interruption: Interruption) -> None:
  """Trains to `config.train.steps`, from the newest checkpoint if there is one.

  After SIGTERM to any of its processes it saves a checkpoint and returns.

  Raises:
    InputError: a setting does not fit, the directory holds another run, or the
      loss is no longer finite.
    Interrupted: SIGTERM or Ctrl-C came before training was set up.
  """
  task = make_task(config)
  if not task.trains:
    raise InputError(f'{task.title}: there is nothing to train; use --mode=eval')
  ownership.check_workdir(workdir, config)
  with distributed.interruptible(interruption):
    setup = set_up(task)
    setup.check_train_batch()
    session = task.open(setup, workdir)
    evaluator = session.evaluator()
    # Opens every split that will be evaluated: a missing one fails now, not later.
    print(session.describe(('train', *_evaluated_splits(config, evaluator))))
    _warn_of_short_run(config)
    # The first process decides: a shared folder may look different to the others.
    resumes = bool(distributed.from_first(ownership.is_started(workdir)))
    # Before the run is recorded, so that a mistake in config.init can still be fixed.
    plan = None if resumes else session.plan_weights()
    if plan and plan.sources:
      print(plan.report())
  with (
    ownership.claim_workdir(workdir, config, resumes),
    TensorBoardWriter(workdir / 'tensorboard') as board,
    jax.set_mesh(setup.mesh),
  ):
    checkpoints = Checkpoints(workdir, config.train.keep_checkpoints)
    if resumes:
      step, state = restore(checkpoints, setup)
      print(f'Resuming {workdir} at step {step}.')
    else:
      step, state = 0, fresh_state(setup, plan)
      if distributed.is_first():
        session.write_description(workdir, plan)
    stop = distributed.StopSignal(interruption, setup.mesh)
    trainer = Trainer(workdir, setup, session, evaluator, checkpoints, stop, board)
    try:
      trainer.run(step, state)
    finally:
      checkpoints.close()


def fresh_state(setup: Setup, plan: Plan) -> TrainState:
  """Returns the state of a new run; parameters come from config.init, or are fresh."""
  seed = setup.config.seed
  # Fresh parameters first: making them takes more memory than they occupy.
  params = setup.states.fresh_params(seed, plan.fresh) | plan.read()
  others = plan.read_collections(by_path(setup.states.abstract.collections))
  return setup.states.from_params(params, seed, others)


def restore(checkpoints: Checkpoints, setup: Setup) -> tuple[int, TrainState]:
  """Reads the newest complete checkpoint; returns its step and the state."""
  step, tree = checkpoints.restore_newest(setup.states.abstract.to_tree())
  return step, TrainState(**tree)


def _warn_of_short_run(config: ConfigDict) -> None:
  """Says so if a run is too short for its schedule, as when only the steps were set."""
  options = config.optimizer
  ramps = options.warmup_steps + options.cooldown_steps
  if ramps > config.train.steps:
    print(
      f'Note: warming up and cooling down takes {ramps:,} steps, the run has '
      f'{config.train.steps:,}: it never trains at the full learning rate. Set '
      'config.optimizer.warmup_steps and config.optimizer.cooldown_steps as well.'
    )


def _evaluated_splits(config: ConfigDict, evaluator: Evaluator) -> list[str]:
  """Returns the splits that the run will evaluate, each once."""
  splits = config.eval.split, config.eval.final_split
  every = (name for one in splits for name in (*evaluator.splits_before(one), one))
  return [*dict.fromkeys(every)]


class Trainer:
  """Runs the training loop of one work directory.

  Attributes:
    state: the training state after the last finished step.
    step: number of finished steps, on the host.
  """

  def __init__(
    self,
    workdir: epath.Path,
    setup: Setup,
    session: Session,
    evaluator: Evaluator,
    checkpoints: Checkpoints,
    stop: distributed.StopSignal,
    board: TensorBoardWriter,
  ):
    self._config = setup.config
    self._workdir = workdir
    self._setup = setup
    self._session = session
    self._evaluator = evaluator
    self._checkpoints = checkpoints
    self._stop = stop
    self._board = board

  def run(self, step: int, state: TrainState) -> None:
    """Trains, evaluates and saves until the last step or an interruption."""
    self.step, self.state = step, state
    # Only one process reads and writes it; lines after the checkpoint are dropped.
    self._metrics_log = (
      MetricsLog(self._workdir, step) if distributed.is_first() else None
    )
    skipped = self._metrics_log.count(SKIPPED) if self._metrics_log else 0
    self._finite = FiniteCheck(
      self._config.train.max_skipped, int(distributed.from_first(skipped))
    )
    self._compile_ahead()
    try:
      self._evaluate_if_due()
      self._train()
      if not self._stop.received:
        self._evaluate_if_due()
        self._evaluate_finally()
    except Interrupted:
      self._stop.poll()
    if self._stop.received:
      if self.step:
        self._save()
      print(f'Interrupted after step {self.step}; run the same command to continue.')

  def _compile_ahead(self) -> None:
    """Compiles evaluation and checksums, so that a signal does not wait for it later.

    The first step compiles the train step; before it there is nothing to save.
    """
    self._evaluator.compile()
    checksums(self.state.to_tree())

  def _train(self) -> None:
    """Runs the remaining steps, and logs, saves and evaluates when that is due."""
    config, mesh = self._config.train, self._setup.mesh
    train_step = jax.jit(self._setup.make_train_step(), **self._setup.jit_options)
    # Not the key of the initial parameters.
    key = jax.random.key(self._config.seed + 1)
    batches = prefetch(
      self._session.train_batches(self.step),
      lambda batch: sharding.put_batch(batch, mesh),
    )
    bar = tqdm(
      total=config.steps,
      initial=self.step,
      bar_format='train {percentage:3.0f}% |{bar}| {n}/{total} '
      '[{elapsed}<{remaining}{postfix}]',
      disable=None,
    )
    with bar, contextlib.closing(batches):
      first, timer = self.step, StepTimer(self.step)
      before: Metrics | None = None
      while self.step < config.steps and not self._stop.poll():
        with timer.waiting():
          batch = next(batches)
        self.state, metrics = train_step(self.state, batch, key)
        # The device works on this step while the host checks the previous one.
        if before is not None:
          self._check(before)
        before = metrics
        self.step += 1
        bar.update()
        if self.step == first + 1:
          # Compilation does not count towards the speed.
          jax.block_until_ready(metrics)
          timer.restart(self.step)
        if self._is_due(config.log_every):
          self._check(metrics)
          self._log(metrics, timer.read(self.step, config.batch_size), bar)
        if self._is_due(config.checkpoint_every):
          self._check(metrics)
          with timer.paused():
            self._save()
        if self._is_due(self._config.eval.every):
          self._check(metrics)
          with timer.paused():
            self._evaluate_if_due()
      if before is not None:
        self._check(before)

  def _check(self, metrics: Metrics) -> None:
    """Raises NonFiniteLossError at a step that is not finite, or logs the skip."""
    if self._finite(self.step, metrics) and self._metrics_log:
      self._metrics_log.append(self.step, 'train', {SKIPPED: self._finite.skipped})

  def _is_due(self, every: int) -> bool:
    """Returns whether this is one of every `every` steps, or the last step."""
    return self.step % every == 0 or self.step == self._config.train.steps

  def _log(self, metrics: Metrics, speed: dict[str, float], bar: tqdm) -> None:
    """Logs the losses of this step, and the speed since the last log."""
    if not distributed.is_first():
      return
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    shown = _describe_losses(values)
    if speed:
      shown = f'{speed["examples_per_second"]:.0f} examples/s, {shown}'
    values |= speed
    self._metrics_log.append(self.step, 'train', values)
    self._board.scalars(self.step, 'train', values)
    bar.set_postfix_str(shown)
    if bar.disable:  # Not a terminal.
      print(f'step {self.step}/{self._config.train.steps}: {shown}', flush=True)

  def _save(self) -> None:
    best = self._best_step() if distributed.is_first() else None
    found = int(distributed.from_first(-1 if best is None else best))
    self._checkpoints.save(
      self.step, self.state.to_tree(), None if found < 0 else found
    )

  def _best_step(self) -> int | None:
    """Returns the step with the best evaluation so far; None without `keep_best`."""
    metric = self._config.train.keep_best
    if not metric:
      return None
    lowest = metric.startswith('loss/')
    return self._metrics_log.best(self._config.eval.split, metric, lowest=lowest)

  def _evaluate_if_due(self) -> None:
    """Evaluates if that is due at this step, also right after a resume."""
    options = self._config.eval
    if self.step and self.step % options.every == 0:
      self._evaluate(options.split)

  def _evaluate_finally(self) -> None:
    tables = self._evaluate(self._config.eval.final_split)
    if tables:
      print(f'\n{tables}\nWritten to {self._workdir}/eval.')

  def _evaluate(self, split: str) -> str:
    """Evaluates a split, and first the splits that it needs; returns its tables.

    Raises:
      Interrupted: SIGTERM came; nothing was written.
    """
    for before in self._evaluator.splits_before(split):
      self._evaluate_one(before)
    return self._evaluate_one(split)

  def _evaluate_one(self, split: str) -> str:
    """Evaluates one split and writes its reports, unless they exist already."""
    tables = self._workdir / 'eval' / f'{split}-{self.step}.md'
    done = distributed.is_first() and (
      self._metrics_log.has(self.step, split) and tables.exists()
    )
    if distributed.from_first(done):
      return tables.read_text() if done else ''
    metrics, text = self._evaluator.evaluate(
      self.state.variables, self._workdir, self.step, split, self._stop, self._board
    )
    if distributed.is_first():
      # Written last: a run that is killed before this line repeats the evaluation.
      self._metrics_log.append(self.step, split, metrics)
      headlines = self._evaluator.headlines
      shown = ', '.join(f'{name} {metrics[name]:.4g}' for name in headlines)
      if split == self._config.eval.split and self._best_step() == self.step:
        shown += f'; the best {self._config.train.keep_best} so far'
      tqdm.write(f'{split}, step {self.step}: {shown}')
    # A process that exited while the first one writes would end that one too.
    distributed.wait_for_all()
    return text


def _describe_losses(metrics: dict[str, float]) -> str:
  """Returns the total loss, and in brackets its parts."""
  parts = {
    name.removeprefix('loss/'): value
    for name, value in metrics.items()
    if name.startswith('loss/')
  }
  total = parts.pop('total', math.nan)
  inside = ', '.join(f'{name} {value:.3g}' for name, value in parts.items())
  return f'loss {total:.4g}' + (f' ({inside})' if inside else '')
