"""Measures a training step: FLOPs and bytes by part of the model, and its run time.

  python benchmarks/training.py [--config=configs/quickstart.py] [--steps=0]

First counts the work of the model's parts from their shapes, which takes neither time
nor memory: with --steps=0 it works for models that do not fit this machine. Bytes are
those that matrix products and convolutions read and write, including parameters, each
once. Parts with fewer FLOPs per byte than the machine can do in the time of a byte are
limited by memory.
Then times the step on one random batch; the input pipeline has its own benchmark. Page
faults, and the share of the processor time that goes to the system, show what it costs
that each step allocates its temporaries anew (see rahf/runtime/huge_pages.py).
Flags can override any field, as in --config.train.batch_size=8.
"""

import resource
import statistics
import time

import jax
import machine
from absl import app, flags
from ml_collections import config_flags
from model_parts import PARTS, part_of

from rahf.costs import work
from rahf.costs.work import Work
from rahf.data.schema import Batch
from rahf.drawing.markdown import markdown_table
from rahf.runtime import sharding
from rahf.tasks import make_task
from rahf.training.batch_spec import batch_shapes, random_batch
from rahf.training.setup import set_up

_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/quickstart.py', 'What to train.'
)
_STEPS = flags.DEFINE_integer('steps', 20, 'Timed steps; 0 to only count work.')
_WARM_UP = flags.DEFINE_integer('warm_up', 3, 'Warm-up steps.')


def main(argv: list[str]) -> None:
  del argv
  config = _CONFIG.value
  print(f'{machine.processor()}; {machine.accelerator()}')
  setup = set_up(make_task(config))
  model, states, mesh = setup.task.model, setup.states, setup.mesh
  size = config.train.batch_size
  count = sum(leaf.size for leaf in jax.tree.leaves(states.abstract.params))
  print(f'{model.config.variant}, {model.config.image_size} px, batch {size}')
  _line('parameters', count / 1e6, 'M')
  step = jax.jit(setup.make_train_step(), **setup.jit_options)
  with jax.set_mesh(mesh):
    arguments = states.abstract, batch_shapes(config, size), jax.random.key(0)
    counts = work.count(step, *arguments)
    print(work_table(counts, size))
    if _STEPS.value:
      start = time.perf_counter()
      compiled = step.lower(*arguments).compile()
      _line('compile', time.perf_counter() - start, 's')
      temporaries = compiled.memory_analysis().temp_size_in_bytes
      _line('temporaries', temporaries / 2**20, 'MiB')
      batch = sharding.put_batch(random_batch(config, size), mesh)
      seconds, faults, share = time_steps(compiled, states.make(config.seed), batch)
      _line(f'step, median of {_STEPS.value}', seconds, 's')
      _line('throughput', size / seconds, 'examples/s')
      _line('page faults a step', faults, '')
      _line('of the system', 100 * share, '% of the processor time')
      _line('achieved', work.total(counts).flops / seconds / 1e9, 'GFLOP/s')


def work_table(counts: dict[str, Work], examples: int) -> str:
  """Returns a table of the work for one example by part: forward pass and total."""
  parts = {name: [work.NOTHING] * 2 for name in (*PARTS, 'all')}
  for scope, done in counts.items():
    for name in (part_of(scope), 'all'):
      forward, both = parts[name]
      forward = forward if 'transpose(' in scope else forward + done
      parts[name] = [forward, both + done]
  rows = []
  for name, (forward, both) in parts.items():
    if both == work.NOTHING:
      continue
    intensity = f'{both.flops / both.bytes:.0f}'
    forward, flops, moved = (
      _thousands(count / examples / 1e9) for count in (forward.flops, *both)
    )
    rows.append([name, forward, flops, moved, intensity])
  header = ('one example', 'forward GFLOP', 'GFLOP', 'GB', 'FLOP a byte')
  return markdown_table(header, rows)


def time_steps(compiled, state, batch: Batch) -> tuple[float, float, float]:
  """Returns a step's median seconds, its page faults, and the system's share."""
  seconds = []
  for step in range(_WARM_UP.value + _STEPS.value):
    if step == _WARM_UP.value:
      before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    state, metrics = compiled(state, batch, jax.random.key(0))
    jax.block_until_ready(metrics)
    seconds.append(time.perf_counter() - start)
  after = resource.getrusage(resource.RUSAGE_SELF)
  faults = (after.ru_minflt - before.ru_minflt) / _STEPS.value
  system, user = after.ru_stime - before.ru_stime, after.ru_utime - before.ru_utime
  return statistics.median(seconds[_WARM_UP.value :]), faults, system / (system + user)


def _thousands(value: float) -> str:
  return f'{value:,.0f}' if value >= 1000 else f'{value:.3g}'


def _line(name: str, value: float, unit: str) -> None:
  print(f'{name:32}{value:10.3f} {unit}')


if __name__ == '__main__':
  app.run(main)
