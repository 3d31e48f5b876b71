"""Measures time and memory of loading pretrained weights into a full-size model.

  python benchmarks/loading.py [--scratch=DIR]

Writes random values in the original formats (about 2.3 GB) into a temporary folder:
`t5_1_1_base` like T5X (msgpack index, gzipped Zarr chunks, without optimizer state) and
a ViT-L/16 at 384 px like a release. Then a new process loads them into the multi-head
model and prints its peak memory growth.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
import time

import flax
import jax
import machine
import numpy as np
import tensorstore
from absl import app, flags

from rahf import config as config_lib
from rahf.models.rahf import RAHFConfig
from rahf.pretrained import loading
from rahf.runtime.tree import by_path
from rahf.tasks import make_task
from rahf.training.setup import set_up
from rahf.training.state import StateFactory

_SCRATCH = flags.DEFINE_string('scratch', None, 'Parent of the temporary folder.')
_LOAD = flags.DEFINE_string('load', None, 'Used internally: loads these files.')

CHUNK = 2**20  # Most values of a Zarr chunk, as T5X splits arrays among hosts.


def make_config():
  """Returns the multi-head model with a ViT-L/16 at 384 px and T5 v1.1 base."""
  config = config_lib.default_config()
  config.model.variant = 'multi_head'
  config.model.image_size = 384
  config.model.vit.update(width=1024, layers=24, heads=16, mlp=4096)
  return config


def make_factory() -> tuple[RAHFConfig, StateFactory]:
  setup = set_up(make_task(make_config()))
  return setup.task.model.config, setup.states


def main(argv: list[str]) -> None:
  del argv
  if _LOAD.value:
    load(pathlib.Path(_LOAD.value))
    return
  print(f'{machine.processor()}; {machine.accelerator()}', flush=True)
  with tempfile.TemporaryDirectory(dir=_SCRATCH.value) as scratch:
    folder = pathlib.Path(scratch)
    write(folder, by_path(make_factory()[1].abstract.params))
    subprocess.run([sys.executable, __file__, f'--load={folder}'], check=True)


def write(folder: pathlib.Path, params: dict[str, jax.ShapeDtypeStruct]) -> None:
  """Writes random values as a T5X checkpoint and as a ViT release."""
  random, start = np.random.default_rng(0), time.perf_counter()
  target, vit = {}, {}
  for path, leaf in params.items():
    part, _, name = path.partition('/')
    if part == 't5':
      array = random.standard_normal(leaf.shape, np.float32)
      target[tuple(name.split('/'))] = write_zarr(folder / 't5x', name, array)
    elif part == 'vit':
      vit[name] = random.standard_normal(leaf.shape, np.float32)
  tree = {'target': flax.traverse_util.unflatten_dict(target), 'state': {'step': 1}}
  index = flax.serialization.msgpack_serialize({'version': 3, 'optimizer': tree})
  (folder / 't5x' / 'checkpoint').write_bytes(index)
  np.savez(folder / 'vit.npz', **vit)
  size = sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())
  _line('written', size / 1e9, f'GB in {time.perf_counter() - start:.0f} s')


def write_zarr(folder: pathlib.Path, name: str, array: np.ndarray) -> dict:
  """Writes one array; returns its entry in the index."""
  path = f'target.{name.replace("/", ".")}'
  rows = max(1, CHUNK // (array.size // array.shape[0]))
  spec = {
    'driver': 'zarr',
    'dtype': 'float32',
    'kvstore': {'driver': 'file', 'path': f'{folder / path}/'},
    'metadata': {
      'chunks': [min(rows, array.shape[0]), *array.shape[1:]],
      'compressor': {'id': 'gzip', 'level': 1},
      'shape': list(array.shape),
    },
  }
  tensorstore.open(spec, create=True).result().write(array).result()
  return spec | {'kvstore': {'driver': 'file', 'path': f'{path}/'}}


def load(folder: pathlib.Path) -> None:
  """Loads the files into a model and prints time and memory growth."""
  model, states = make_factory()
  abstract = by_path(states.abstract.params)
  needed = sum(leaf.size * leaf.dtype.itemsize for leaf in abstract.values()) / 1e9
  # JAX and its devices need memory in any case: exclude it.
  jax.block_until_ready(jax.jit(lambda x: x + 1)(0))
  before, start = memory('VmRSS'), time.perf_counter()
  init = {'vit': str(folder / 'vit.npz'), 't5': str(folder / 't5x'), 'rahf': ''}
  plan = loading.plan(loading.open_sources(init), abstract, model)
  _line('opened and matched', time.perf_counter() - start, 's')
  params = jax.block_until_ready(states.fresh_params(0, plan.fresh))
  _line('fresh ones made', time.perf_counter() - start, 's')
  _line('  peak above before', memory('VmHWM') - before, 'GB')
  _line('  now above before', memory('VmRSS') - before, 'GB')
  params |= plan.read()
  seconds, grown = time.perf_counter() - start, memory('VmHWM') - before
  print(plan.report())
  assert len(params) == len(abstract)
  _line('parameters', sum(leaf.size for leaf in params.values()) / 1e6, 'M')
  _line('their size', needed, 'GB')
  _line('all', seconds, 's')
  _line('peak of memory above before', grown, 'GB')
  _line('  times their size', grown / needed, '')


def memory(field: str) -> float:
  """Returns this process's memory in GB: VmRSS is the current value, VmHWM the peak."""
  status = pathlib.Path('/proc/self/status').read_text()
  return int(re.search(rf'{field}:\s+(\d+) kB', status)[1]) * 1024 / 1e9


def _line(name: str, value: float, unit: str) -> None:
  print(f'{name:32}{value:10.3f} {unit}', flush=True)


if __name__ == '__main__':
  app.run(main)
