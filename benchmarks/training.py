"""What a training step costs in FLOPs, and how long it takes here.

  python benchmarks/training.py [--config=configs/quickstart.py] [--steps=0]

First counts the FLOPs of the model's parts from their shapes, which needs neither
time nor memory, so that --steps=0 answers for models that do not fit this machine.
Then times the step on one random batch: the input pipeline has its own benchmark.
Any field can be changed, as in --config.train.batch_size=8.
"""

import statistics
import time
from typing import Any

import jax
import machine
from absl import app, flags
from ml_collections import config_flags
from synthetic import random_batch

from rahf import config as config_lib
from rahf import optimizer as optimizer_lib
from rahf import sharding
from rahf.data.schema import Batch
from rahf.models.rahf import RAHF
from rahf.state import StateFactory
from rahf.step import jit_train_step

_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/quickstart.py', 'What to train.'
)
_STEPS = flags.DEFINE_integer('steps', 20, 'Steps that are timed; 0 only counts.')
_WARM_UP = flags.DEFINE_integer('warm_up', 3, 'Steps before those.')


def main(argv: list[str]) -> None:
  del argv
  config = _CONFIG.value
  config_lib.validate(config)
  print(f'{machine.processor()}; {machine.accelerator()}')
  mesh = sharding.make_mesh(config.mesh)
  model = RAHF(config_lib.model_config(config))
  optimizer = optimizer_lib.make_optimizer(config.optimizer, config.train.steps)
  states = StateFactory(model, optimizer, mesh)
  batch = random_batch(config)
  size = config.train.batch_size
  count = sum(leaf.size for leaf in jax.tree.leaves(states.abstract.params))
  print(f'{model.config.variant}, {model.config.image_size} px, batch {size}')
  _line('parameters', count / 1e6, 'M')
  for name, flops in part_flops(model, states.abstract.params, batch).items():
    _line(f'  {name}', flops / size / 1e9, 'GFLOP/example')

  step = jit_train_step(config, model, optimizer, states, mesh)
  with jax.set_mesh(mesh):
    lowered = step.lower(states.abstract, batch, jax.random.key(0))
    # A loop's body is counted once, however often it runs.
    flops = lowered.cost_analysis()['flops'] * config.train.accumulate
    _line('training step', flops / size / 1e9, 'GFLOP/example')
    if _STEPS.value:
      start = time.perf_counter()
      compiled = lowered.compile()
      _line('compile', time.perf_counter() - start, 's')
      temporaries = compiled.memory_analysis().temp_size_in_bytes
      _line('temporaries', temporaries / 2**20, 'MiB')
      seconds = time_steps(compiled, states.make(config.seed), batch, mesh)
      _line(f'step, median of {_STEPS.value}', seconds, 's')
      _line('throughput', size / seconds, 'examples/s')
      _line('achieved', flops / seconds / 1e9, 'GFLOP/s')


def part_flops(model: RAHF, params: Any, batch: Batch) -> dict[str, float]:
  """Returns the FLOPs of each part's forward pass over the batch."""
  variables = {'params': params}

  def flops(method, *args) -> float:
    part = jax.jit(lambda v, *a: model.apply(v, *a, method=method))
    return part.lower(variables, *args).cost_analysis()['flops']

  fused = jax.eval_shape(
    lambda v: model.apply(v, batch.image, batch.text, train=False, method=RAHF.encode),
    variables,
  )
  texts = model.config.texts
  return {
    'ViT': flops(lambda m, image: m.vit(image, train=False), batch.image),
    f'T5 encoder, {texts} text{"s"[: texts != 1]}': flops(
      lambda m, tokens, mask: m.t5.encode(
        tokens.reshape(-1, *tokens.shape[2:]),
        mask.reshape(-1, mask.shape[-1]),
        train=False,
      ),
      *fused,
    ),
    'heatmap heads': flops(lambda m, fused: m.maps_and_scores(fused)[0], fused),
    'score heads': flops(lambda m, fused: m.maps_and_scores(fused)[1], fused),
    'T5 decoder': flops(
      lambda m, tokens, mask, target: m.t5.decode(
        tokens[:, -1], mask[:, -1], target, train=False
      ),
      *fused,
      batch.target,
    ),
    'forward pass': flops(
      lambda m, *inputs: m(*inputs, train=False),
      batch.image,
      batch.text,
      batch.target,
    ),
  }


def time_steps(compiled, state, batch: Batch, mesh: jax.sharding.Mesh) -> float:
  """Returns the median seconds of a step."""
  on_device = sharding.put_batch(batch, mesh)
  seconds = []
  for _ in range(_WARM_UP.value + _STEPS.value):
    start = time.perf_counter()
    state, metrics = compiled(state, on_device, jax.random.key(0))
    jax.block_until_ready(metrics)
    seconds.append(time.perf_counter() - start)
  return statistics.median(seconds[_WARM_UP.value :])


def _line(name: str, value: float, unit: str) -> None:
  print(f'{name:32}{value:10.3f} {unit}')


if __name__ == '__main__':
  app.run(main)
