"""Writes a trace of a few training steps on random data, for XProf.

  python launch/trace_steps.py --config=configs/augmented_prompt.py [--out=profile]

Random data, so that the trace shows the devices' work and nothing of the input
pipeline. Any field can be changed, as in --config.train.batch_size=8.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from ml_collections import config_flags

from rahf import config as config_lib
from rahf import distributed, sharding
from rahf import optimizer as optimizer_lib
from rahf.errors import InputError
from rahf.models.rahf import RAHF
from rahf.precompile import abstract_batch
from rahf.state import StateFactory
from rahf.step import jit_train_step

_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/quickstart.py', 'What to train.'
)
_OUT = flags.DEFINE_string('out', 'profile', 'The folder that the trace goes to.')
_STEPS = flags.DEFINE_integer('steps', 5, 'Steps in the trace.', lower_bound=1)
_MULTIHOST = flags.DEFINE_bool('multihost', False, 'As of rahf.main: run on all hosts.')


def main(argv: list[str]) -> None:
  del argv
  config = _CONFIG.value
  config_lib.validate(config)
  if _MULTIHOST.value:
    distributed.join()
  mesh = sharding.make_mesh(config.mesh)
  rows = config.train.batch_size
  sharding.check_batch_size(
    'config.train.batch_size', rows, mesh, config.train.accumulate
  )
  model = RAHF(config_lib.model_config(config))
  optimizer = optimizer_lib.make_optimizer(config.optimizer, config.train.steps)
  states = StateFactory(model, optimizer, mesh)
  key = jax.random.key(0)
  with jax.set_mesh(mesh):
    batch = random_batch(abstract_batch(config, rows, mesh), key)
    step = jit_train_step(config, model, optimizer, states, mesh)
    # The first call compiles, the second may still warm up.
    state = states.make(config.seed)
    for _ in range(2):
      state, metrics = step(state, batch, key)
    jax.block_until_ready(metrics)
    with jax.profiler.trace(_OUT.value):
      for number in range(_STEPS.value):
        with jax.profiler.StepTraceAnnotation('train', step_num=number):
          state, metrics = step(state, batch, key)
      jax.block_until_ready(metrics)
  print(f'Wrote {_STEPS.value} steps on {mesh.size} devices to {_OUT.value}.')


def random_batch(shapes: Any, key: jax.Array) -> Any:
  """Returns arrays of these shapes in their shards: no label and no word is missing."""

  def fill(spec: jax.ShapeDtypeStruct) -> jax.Array:
    if spec.dtype == jnp.bool_:
      return jnp.ones(spec.shape, bool)
    if spec.dtype == jnp.int32:
      # Ids that every vocabulary has, none of them padding.
      return jax.random.randint(key, spec.shape, 2, 200)
    return jax.random.uniform(key, spec.shape, spec.dtype)

  places = jax.tree.map(lambda spec: spec.sharding, shapes)
  return jax.jit(lambda: jax.tree.map(fill, shapes), out_shardings=places)()


def run(argv: list[str]) -> None:
  try:
    main(argv)
  except InputError as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  app.run(run)
