"""Estimates the paper's training on larger TPU slices: time, exchange, input, cost.

  python benchmarks/scaling.py [--configs=multi_head] [--batches=256,1024,4096]
    [--compile=v5e-64:1024] [--programs=runs/scaling.json]

For each config and kind of chip, training steps for eight chips are compiled (libtpu,
the extra `tpu`; about ten minutes of one core each) with two and with eight
micro-batches of 4 images a chip. A straight line through both tells what of the bytes
moved and exchanged grows with the micro-batches, and what does not. Both are costs of
one chip, which does not see how many others there are: parameters are gathered and
gradients are scattered in rings. So a cell is either

  compiled  the costs of a program for this slice and batch, see --compile
  counted   from the two programs; with fewer than 4 images a chip, one micro-batch
            counts in proportion

The time of a step is the longest of FLOPs, bytes moved and bytes exchanged at the
chip's rates, which no program reaches; what overlaps is left to the compiler. Compiled
programs are kept in --programs, so that the same command continues.
"""

import concurrent.futures
import importlib
import json
import math
import multiprocessing
import pathlib
import sys
from typing import NamedTuple

from absl import app, flags
from tqdm import tqdm

from rahf.costs.chips import CHIPS, GB, Chip
from rahf.drawing.markdown import markdown_table

# v5p slices are named by cores, of which a chip has two.
SLICES = {
  'v5e-16': 'v5e:4x4',
  'v5e-64': 'v5e:8x8',
  'v5e-256': 'v5e:16x16',
  'v5p-16': 'v5p:2x2x2',
  'v5p-64': 'v5p:2x4x4',
  'v5p-256': 'v5p:4x4x8',
}
EIGHT_CHIPS = {'v5e': 'v5e:2x4', 'v5p': 'v5p:2x2x2'}
KINDS = {'v5e': 'TPU v5 lite', 'v5p': 'TPU v5'}
MICRO_IMAGES = 4  # Of a chip, as in the configs with eight chips.
FEW, MANY = 2, 8  # Micro-batches of the programs for eight chips.
PAPER_STEPS = 20_000
HEADER = (
  *('slice', 'batch', 'images a chip', 'step, s', 'limited by', 'GB exchanged'),
  *('images/s to read', 'chip-hours', ''),
)

_CONFIGS = flags.DEFINE_list(
  'configs', ['multi_head', 'augmented_prompt'], 'Files of configs/, without .py.'
)
_SLICES = flags.DEFINE_list('slices', [*SLICES], 'Names of slices.')
_BATCHES = flags.DEFINE_list('batches', ['256', '1024', '4096'], 'Images a step.')
_COMPILE = flags.DEFINE_list('compile', [], 'SLICE:BATCH to compile instead of count.')
_PROGRAMS = flags.DEFINE_string('programs', 'runs/scaling.json', 'Compiled programs.')


class Costs(NamedTuple):
  """Costs of a training step for one chip."""

  flops: float
  moved: float
  exchanged: float

  def times(self, chip: Chip) -> dict[str, float]:
    """Returns seconds at the chip's rates."""
    return {
      'FLOPs': self.flops / chip.flops,
      'memory': self.moved / chip.bandwidth,
      'exchange': self.exchanged / chip.interconnect,
    }


def main(argv: list[str]) -> None:
  """Compiles what is missing, and prints a table for each config."""
  del argv
  programs = pathlib.Path(_PROGRAMS.value)
  known = json.loads(programs.read_text()) if programs.exists() else {}
  wanted = [tuple(one.split(':')) for one in _COMPILE.value]
  kinds = {name.partition('-')[0] for name in _SLICES.value}
  work = [
    (config, EIGHT_CHIPS[kind], 8 * MICRO_IMAGES * micro)
    for config in _CONFIGS.value
    for kind in sorted(kinds)
    for micro in (FEW, MANY)
  ]
  work += [
    (c, SLICES[name], int(batch)) for c in _CONFIGS.value for name, batch in wanted
  ]
  for config, topology, batch in tqdm(work, 'compile'):
    if (name := f'{config} {topology} {batch}') not in known:
      known[name] = compiled(config, topology, batch)
      programs.parent.mkdir(parents=True, exist_ok=True)
      programs.write_text(json.dumps(known, indent=1))
  for config in _CONFIGS.value:
    rows = [
      row(name, int(batch), config, known)
      for name in _SLICES.value
      for batch in _BATCHES.value
    ]
    print(f'\n{config}\n\n{markdown_table(HEADER, rows)}')


def row(name: str, batch: int, config: str, known: dict[str, list[float]]) -> list[str]:
  """Returns the cells of a slice and a batch."""
  kind, topology = name.partition('-')[0], SLICES[name]
  images = batch / chips(topology)
  if images < 1:
    return [name, f'{batch:,}', 'fewer than one', *[''] * (len(HEADER) - 3)]
  if found := known.get(f'{config} {topology} {batch}'):
    costs, source = Costs(*found), 'compiled'
  else:
    eight = (
      f'{config} {EIGHT_CHIPS[kind]} {8 * MICRO_IMAGES * m}' for m in (FEW, MANY)
    )
    costs, source = counted(images, *(Costs(*known[key]) for key in eight)), 'counted'
  times = costs.times(CHIPS[KINDS[kind]])
  limit, step = max(times.items(), key=lambda item: item[1])
  hours = PAPER_STEPS * step * chips(topology) / 3600
  return [
    name,
    f'{batch:,}',
    f'{images:g}',
    f'{step:.2f}',
    limit,
    f'{costs.exchanged / GB:.1f}',
    f'{batch / step:,.0f}',
    f'{hours:,.0f}',
    source,
  ]


def counted(images: float, few: Costs, many: Costs) -> Costs:
  """Returns costs along the line through two programs.

  Args:
    images: of a chip.
    few, many: costs with FEW and with MANY micro-batches.
  """
  micro = images / MICRO_IMAGES

  def line(low: float, high: float, at: float) -> float:
    return low + (at - FEW) * (high - low) / (MANY - FEW)

  return Costs(
    line(few.flops, many.flops, micro),
    line(few.moved, many.moved, micro),
    # The last micro-batch exchanges as much, however small it is.
    line(few.exchanged, many.exchanged, max(micro, 1)),
  )


def chips(topology: str) -> int:
  """Returns the number of chips."""
  return math.prod(map(int, topology.partition(':')[2].split('x')))


def compiled(config: str, topology: str, batch: int) -> list[float]:
  """Compiles a training step in a process of its own, as compilers keep memory."""
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
    return pool.submit(compile_here, config, topology, batch).result()


def compile_here(name: str, topology: str, batch: int) -> list[float]:
  """Returns the costs of a program."""
  sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # For configs/.
  from rahf import precompile

  config = importlib.import_module(f'configs.{name}').get_config()
  config.precompile.topology = topology
  config.train.batch_size, config.eval.batch_size = batch, chips(topology)
  config.train.accumulate = max(batch // (chips(topology) * MICRO_IMAGES), 1)
  costs = precompile.compile_training(precompile.set_up_for_topology(config))
  if not costs.fits:
    raise RuntimeError(f'{name} with {batch} images does not fit into {topology}')
  return [costs.flops, costs.bytes_moved, costs.exchanged]


if __name__ == '__main__':
  app.run(main)
