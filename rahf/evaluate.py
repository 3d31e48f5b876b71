"""Evaluates a run's newest checkpoint, or models on people's preferences.

python -m rahf.main --mode=eval --config=… --workdir=DIR
python -m rahf.evaluate preferences MODEL [MODEL …] --pairs=DIR
python -m rahf.evaluate compare DIR [DIR …]     the same as python -m rahf.compare
"""

import sys
from collections.abc import Sequence

from etils import epath
from ml_collections import ConfigDict

from rahf.errors import InputError, fail
from rahf.runtime.preemption import Interruption


def evaluate(
  config: ConfigDict, workdir: epath.Path, interruption: Interruption
) -> None:
  """Evaluates the newest checkpoint on `config.eval.split` and prints the tables.

  A model that is not trained has no checkpoint; its weights come from config.init.

  Raises:
    InputError: there is no checkpoint, or there are no weights, it was trained with
      another config, or another process is evaluating in the directory.
    Interrupted: SIGTERM or Ctrl-C came.
  """
  # Imported here because `compare` needs neither JAX nor TensorFlow.
  import jax

  from rahf.runtime import distributed
  from rahf.tasks import make_task
  from rahf.training.setup import set_up
  from rahf.workdir import ownership

  task = make_task(config)
  ownership.check_workdir(workdir, config)
  step = _newest_step(workdir) if task.trains else 0
  with distributed.interruptible(interruption):
    setup = set_up(task)
    session = task.open(setup, workdir)
    evaluator = session.evaluator()
    split = config.eval.split
    # Opens every split now, so that a missing one fails before any evaluation.
    print(session.describe((*evaluator.splits_before(split), split)))
  if task.trains:
    variables = _read_checkpoint(workdir, step, setup)
  else:
    plan = session.plan_weights()
    print(plan.report())
    variables = {'params': setup.states.params_tree(plan.read())}
  stop = distributed.StopSignal(interruption, setup.mesh)

  def evaluate_one(name: str) -> str:
    _, tables = evaluator.evaluate(variables, workdir, step, name, stop, None)
    # A process that exits meanwhile would end the first one too.
    distributed.wait_for_all()
    return tables

  if task.trains:
    lock = ownership.lock_folder(workdir / 'eval')
  else:
    lock = ownership.claim_workdir(workdir, config, started=False)
  with jax.set_mesh(setup.mesh), lock:
    for before in evaluator.splits_before(split):
      done = (workdir / 'eval' / f'{before}-{step}.json').exists()
      if not distributed.from_first(done):
        evaluate_one(before)
    tables = evaluate_one(split)
  print(f'\n{tables}')
  print(f'Written to {workdir}/eval/{split}-{step}.*')


def _newest_step(workdir: epath.Path) -> int:
  from rahf.workdir.ownership import complete_steps

  if not (steps := complete_steps(workdir)):
    raise InputError(
      f'{workdir} has no checkpoint to evaluate; train first, with the same --workdir'
    )
  return steps[-1]


def _read_checkpoint(workdir: epath.Path, step: int, setup):
  from rahf.training.state import TrainState
  from rahf.workdir.checkpoint import Checkpoints

  checkpoints = Checkpoints(workdir)
  tree = checkpoints.restore(step, setup.states.abstract.to_tree())
  checkpoints.close()
  return TrainState(**tree).variables


def main(argv: Sequence[str]) -> int:
  """Runs one of the commands; returns the exit status."""
  command, *rest = argv or ['']
  if command == 'compare':
    from rahf.evaluation import compare_command

    return compare_command.main(rest)
  if command == 'preferences':
    from rahf.inference import preference_command

    return preference_command.main(rest)
  return fail(
    'usage: python -m rahf.evaluate preferences MODEL … --pairs=DIR, or python -m '
    'rahf.evaluate compare RUN …'
  )


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
