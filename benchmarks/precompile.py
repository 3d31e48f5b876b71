"""Compiles the paper's configs for TPU slices and prints their costs as a table.

  python benchmarks/precompile.py [--topologies=v5e:2x4] [--variants=multi_head]

Needs libtpu (the extra `tpu`), 10 GB of memory and 10 to 12 minutes of one core per
row, but no TPU.
Each row runs in a separate process, as compilers do not release memory.
"""

import concurrent.futures
import importlib
import multiprocessing

from absl import app, flags
from tqdm import tqdm

from rahf.models.rahf import VARIANTS

TOPOLOGIES = ('v5e:2x4', 'v5e:4x4', 'v5p:2x2x2', 'v6e:2x4')
HEADER = (
  *('config', 'chips', 'mesh', 'micro-batches', 'training memory, GiB', 'TFLOP'),
  *('GB moved', 'exchanged', 'roofline, s', 'inference memory, GiB', 'copies'),
)

_TOPOLOGIES = flags.DEFINE_list('topologies', [*TOPOLOGIES], 'TPU slices.')
_VARIANTS = flags.DEFINE_list(
  'variants', [*VARIANTS], 'Files of configs/, without .py.'
)


def main(argv: list[str]) -> None:
  del argv
  from rahf.drawing.markdown import markdown_table

  rows = []
  work = [(v, t) for v in _VARIANTS.value for t in _TOPOLOGIES.value]
  for arguments in tqdm(work, desc='compile', unit='config'):
    with concurrent.futures.ProcessPoolExecutor(
      1, multiprocessing.get_context('spawn')
    ) as pool:
      rows.append(pool.submit(row, *arguments).result())
  print(markdown_table(HEADER, rows))


def row(variant: str, topology: str) -> list[str]:
  """Compiles one config for one slice."""
  from rahf import precompile
  from rahf.costs.chips import CHIPS, GB, GIB

  config = importlib.import_module(f'configs.{variant}').get_config()
  config.precompile.topology = topology
  setup = precompile.set_up_for_topology(config)
  training, inference = precompile.compile_steps(setup)
  mesh = setup.mesh
  kind = mesh.devices.flat[0].device_kind
  limit = training.limit / GIB
  return [
    variant,
    f'{mesh.size} x {kind}',
    ' x '.join(map(str, mesh.shape.values())),
    str(config.train.accumulate),
    f'{training.peak / GIB:.1f} of {limit:.4g}{"" if training.fits else " (!)"}',
    f'{training.flops / 1e12:.1f}',
    f'{training.bytes_moved / GB:.0f}',
    f'{training.exchanged / training.bytes_moved:.1%}',
    f'{max(training.times(CHIPS[kind])):.2f}',
    f'{inference.peak / GIB:.1f}{"" if inference.fits else " (!)"}',
    str(training.resharding + inference.resharding),
  ]


if __name__ == '__main__':
  app.run(main)
