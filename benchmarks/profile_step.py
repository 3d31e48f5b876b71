"""Profiles a training step: which operations, in which parts of the model, take time.

  python benchmarks/profile_step.py [--config=configs/quickstart.py] [--steps=10]

Runs the step under JAX's profiler and sums up, over all threads of a CPU, the time of
each instruction of the compiled program, as shares of that sum. It includes the waiting
of a thread that has given parts of an instruction to others.
Flags can override any field, as in --config.train.batch_size=8.
"""

import collections
import pathlib
import re
import tempfile
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import machine
from absl import app, flags
from ml_collections import config_flags
from model_parts import part_of

from rahf.drawing.markdown import markdown_table
from rahf.runtime import sharding
from rahf.tasks import make_task
from rahf.training.batch_spec import batch_shapes, random_batch
from rahf.training.setup import set_up

_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/quickstart.py', 'What to train.'
)
_STEPS = flags.DEFINE_integer('steps', 10, 'Profiled steps.')
# They contain instructions that have a time of their own.
_OUTER = ('while', 'call', 'conditional')
_COMPUTATION = re.compile(r'^(?:ENTRY )?%?([\w.\-]+) \(.*\{$')
_INSTRUCTION = re.compile(
  r'^\s+(?:ROOT )?%?([\w.\-]+) = (?:\([^=]*?\)|\S+) ([\w\-]+)\('
)
_CALLED = re.compile(r'(?:calls|to_apply)=%?([\w.\-]+)')
_SCOPE = re.compile(r'op_name="([^"]*)"')
# Kinds of operations -> pattern of the opcodes in them; the first that fits.
KINDS = {
  'convolutions': r'convolution',
  'matrix products': r'dot|custom-call',
  'sums and maxima': r'reduce|reduce-window',
  'elementwise': r'\b(add|subtract|multiply|divide|maximum|exponential|tanh|rsqrt)\b',
  'copies and others': '',
}


class Operation(NamedTuple):
  """An instruction.

  Attributes:
    opcodes: its own, and those of the instructions that are fused into it.
    scope: of the module that it belongs to.
  """

  opcodes: str
  scope: str


def main(argv: list[str]) -> None:
  del argv
  config = _CONFIG.value
  print(f'{machine.processor()}; {machine.accelerator()}')
  setup = set_up(make_task(config))
  step = jax.jit(setup.make_train_step(), **setup.jit_options)
  size = config.train.batch_size
  with jax.set_mesh(setup.mesh):
    shapes = setup.states.abstract, batch_shapes(config, size), jax.random.key(0)
    compiled = step.lower(*shapes).compile()
    batch = sharding.put_batch(random_batch(config, size), setup.mesh)
    state = setup.states.make(config.seed)
    state, _ = compiled(state, batch, jax.random.key(0))
    with tempfile.TemporaryDirectory() as folder:
      with jax.profiler.trace(folder):
        for _ in range(_STEPS.value):
          state, metrics = compiled(state, batch, jax.random.key(0))
        jax.block_until_ready(metrics)
      seconds = read_seconds(pathlib.Path(folder))
  known = operations(compiled.as_text())
  times = [
    (known[name], seconds[name])
    for name in seconds.keys() & known.keys()
    if known[name].opcodes.split()[0] not in _OUTER
  ]
  total = sum(time for _, time in times)
  print(f'{total / _STEPS.value * 1e3:.0f} ms of all threads in a step')
  for title, group in (('operation', kind_of), ('part', place_of)):
    print(f'\n{shares(title, times, group)}')


def read_seconds(folder: pathlib.Path) -> collections.Counter[str]:
  """Returns the time of each instruction, summed over threads."""
  (path,) = folder.rglob('*.xplane.pb')
  found: collections.Counter[str] = collections.Counter()
  for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
    for line in plane.lines:
      for event in line.events:
        found[event.name] += event.duration_ns / 1e9
  return found


def operations(text: str) -> dict[str, Operation]:
  """Returns the instructions of a compiled program by name."""
  inner: dict[str, list[str]] = collections.defaultdict(list)
  scopes: dict[str, str] = {}
  found, computation = {}, ''
  for line in text.splitlines():
    if header := _COMPUTATION.match(line):
      computation = header[1]
    elif instruction := _INSTRUCTION.match(line):
      name, opcode = instruction.groups()
      inner[computation].append(opcode)
      called, scope = _CALLED.search(line), _SCOPE.search(line)
      found[name] = opcode, called[1] if called else '', scope[1] if scope else ''
      if scope:
        scopes.setdefault(computation, scope[1])
  return {
    # Some fusions have no scope of their own.
    name: Operation(
      ' '.join([opcode, *inner.get(called, [])]), scope or scopes.get(called, '')
    )
    for name, (opcode, called, scope) in found.items()
  }


def kind_of(operation: Operation) -> str:
  return next(
    name for name, pattern in KINDS.items() if re.search(pattern, operation.opcodes)
  )


def place_of(operation: Operation) -> str:
  part = part_of(operation.scope)
  return f'{part}, backward' if 'transpose(' in operation.scope else part


def shares(
  title: str,
  times: Sequence[tuple[Operation, float]],
  group: Callable[[Operation], str],
) -> str:
  """Returns a table of the shares of groups, the largest first."""
  sums: collections.Counter[str] = collections.Counter()
  for operation, time in times:
    sums[group(operation)] += time
  rows = [
    [name, f'{time / sum(sums.values()):.1%}'] for name, time in sums.most_common()
  ]
  return markdown_table((title, 'share'), rows)


if __name__ == '__main__':
  app.run(main)
