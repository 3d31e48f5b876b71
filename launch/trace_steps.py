"""Writes a trace of a few training steps on random data, for XProf.

  python launch/trace_steps.py --config=configs/augmented_prompt.py [--out=profile]

The data are random, so that the trace shows the devices without the input pipeline.
Flags can override any field, as in --config.train.batch_size=8.
"""

import sys

import jax
from absl import app, flags
from ml_collections import config_flags

from rahf.errors import InputError
from rahf.runtime import accelerator, distributed, sharding
from rahf.tasks import make_task
from rahf.training.batch_spec import random_batch
from rahf.training.setup import set_up

_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/quickstart.py', 'What to train.'
)
_OUT = flags.DEFINE_string('out', 'profile', 'The output folder.')
_STEPS = flags.DEFINE_integer('steps', 5, 'Steps in the trace.', lower_bound=1)
_MULTIHOST = flags.DEFINE_bool('multihost', False, 'As of rahf.main: run on all hosts.')


def main(argv: list[str]) -> None:
  del argv
  config = _CONFIG.value
  wanted = accelerator.choose(config.platform)
  if _MULTIHOST.value:
    distributed.join()
  devices = accelerator.start(wanted)
  if _MULTIHOST.value:
    distributed.silence_others()
  print(f'Running on {devices}', flush=True)
  setup = set_up(make_task(config))
  setup.check_train_batch()
  mesh, rows = setup.mesh, config.train.batch_size
  local = len(sharding.process_rows(rows, mesh))
  key = jax.random.key(0)
  with jax.set_mesh(mesh):
    batch = sharding.put_batch(random_batch(config, local), mesh)
    step = jax.jit(setup.make_train_step(), **setup.jit_options)
    # The first call compiles, the second may still warm up.
    state = setup.states.make(config.seed)
    for _ in range(2):
      state, metrics = step(state, batch, key)
    jax.block_until_ready(metrics)
    with jax.profiler.trace(_OUT.value):
      for number in range(_STEPS.value):
        with jax.profiler.StepTraceAnnotation('train', step_num=number):
          state, metrics = step(state, batch, key)
      jax.block_until_ready(metrics)
  print(f'Wrote {_STEPS.value} steps on {mesh.size} devices to {_OUT.value}.')


def run(argv: list[str]) -> None:
  try:
    main(argv)
  except (InputError, OSError) as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  app.run(run)
