"""Evaluates a run's newest checkpoint, and compares evaluations.

python -m rahf.main --mode=eval --config=… --workdir=DIR
python -m rahf.evaluate compare DIR [DIR …]
"""

import sys

from etils import epath
from ml_collections import ConfigDict

from rahf.errors import InputError
from rahf.runtime.preemption import Interruption


def evaluate(
  config: ConfigDict, workdir: epath.Path, interruption: Interruption
) -> None:
  """Evaluates the newest checkpoint on `config.eval.split` and prints the tables.

  Raises:
    InputError: there is no checkpoint, it was trained with another config, or another
      process is evaluating in the directory.
    Interrupted: SIGTERM or Ctrl-C came.
  """
  # Imported here because `compare` needs neither JAX nor TensorFlow.
  import jax

  from rahf.runtime import distributed
  from rahf.tasks import make_task
  from rahf.training.setup import set_up
  from rahf.training.state import TrainState
  from rahf.workdir import ownership
  from rahf.workdir.checkpoint import Checkpoints

  task = make_task(config)
  ownership.check_workdir(workdir, config)
  if not (workdir / 'checkpoints').exists():
    raise _nothing_to_evaluate(workdir)
  checkpoints = Checkpoints(workdir)
  step = checkpoints.latest_step()
  if step is None:
    raise _nothing_to_evaluate(workdir)
  with distributed.interruptible(interruption):
    setup = set_up(task)
    session = task.open(setup)
    evaluator = session.evaluator()
    split = config.eval.split
    # Opens every split now, so that a missing one fails before any evaluation.
    print(session.describe((*evaluator.splits_before(split), split)))
  tree = checkpoints.restore(step, setup.states.abstract.to_tree())
  checkpoints.close()
  variables = TrainState(**tree).variables
  stop = distributed.StopSignal(interruption, setup.mesh)

  def evaluate_one(name: str) -> str:
    _, tables = evaluator.evaluate(variables, workdir, step, name, stop, None)
    # A process that exits meanwhile would end the first one too.
    distributed.wait_for_all()
    return tables

  with jax.set_mesh(setup.mesh), ownership.lock_folder(workdir / 'eval'):
    for before in evaluator.splits_before(split):
      done = (workdir / 'eval' / f'{before}-{step}.json').exists()
      if not distributed.from_first(done):
        evaluate_one(before)
    tables = evaluate_one(split)
  print(f'\n{tables}')
  print(f'Written to {workdir}/eval/{split}-{step}.*')


def _nothing_to_evaluate(workdir: epath.Path) -> InputError:
  return InputError(
    f'{workdir} has no checkpoint to evaluate; train first, with the same --workdir'
  )


if __name__ == '__main__':
  from rahf.evaluation.compare_command import main

  sys.exit(main())
