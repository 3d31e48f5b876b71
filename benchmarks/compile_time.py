"""How long the parts of a model take to compile for a TPU, in a loop and written out.

  python benchmarks/compile_time.py [--config=multi_head] [--topology=v5p:2x2x2]

Each part is compiled with its gradient for a micro-batch of 4 images a chip, in a
process of its own. Needs libtpu (the extra `tpu`), but no TPU. Prints seconds of
processor time, which depend less on what else runs than those of the clock.
"""

import concurrent.futures
import importlib
import multiprocessing
import pathlib
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import machine
from absl import app, flags
from tqdm import tqdm

from rahf.drawing.markdown import markdown_table

IMAGES = 4  # Of a chip.
TEXT_LENGTH = 128
METHODS = {
  'ViT': lambda model, image: model.vit(image, train=True),
  'T5 encoder': lambda model, x, mask: model.t5.encode(x, mask, train=True),
  'T5 decoder': lambda model, *inputs: model.t5.decode(*inputs, train=True),
  'heatmap heads': lambda model, features: model.maps(features, train=True),
  'score heads': lambda model, features: model.scores(features),
}

_CONFIG = flags.DEFINE_string('config', 'multi_head', 'File of configs/, without .py.')
_TOPOLOGY = flags.DEFINE_string('topology', 'v5p:2x2x2', 'TPU slice.')
_PARTS = flags.DEFINE_list('parts', [*METHODS], 'Parts of the model.')


def main(argv: list[str]) -> None:
  """Compiles each part twice, and prints a table."""
  del argv
  print(machine.processor(), flush=True)
  context = multiprocessing.get_context('spawn')
  rows = {part: [part] for part in _PARTS.value}
  work = [(part, loop) for part in rows for loop in (False, True)]
  for part, loop in tqdm(work, 'compile'):
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
      task = pool.submit(compile_part, _CONFIG.value, _TOPOLOGY.value, part, loop)
      rows[part].append(f'{task.result():.0f}')
  print(markdown_table(('seconds', 'written out', 'in a loop'), [*rows.values()]))


def compile_part(name: str, topology: str, part: str, loop: bool) -> float:
  """Returns the seconds of processor time that a part takes to compile."""
  sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # For configs/.
  from rahf import precompile
  from rahf.runtime import sharding

  config = importlib.import_module(f'configs.{name}').get_config()
  config.precompile.topology = topology
  config.model.loop = loop
  setup = precompile.set_up_for_topology(config)
  model, mesh = setup.task.model, setup.mesh

  def loss(params: Any, key: jax.Array, *inputs: jax.Array) -> jax.Array:
    variables, rngs = {'params': setup.gather(params)}, {'dropout': key}
    y = model.apply(variables, *inputs, method=METHODS[part], rngs=rngs)
    return jnp.sum(jnp.square(y), dtype=jnp.float32)

  def shape(array: jax.ShapeDtypeStruct, place: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=place)

  key = shape(jax.eval_shape(lambda: jax.random.key(0)), sharding.replicated(mesh))
  inputs = [
    shape(array, sharding.batch_sharding(mesh))
    for array in inputs_of(part, model.config, IMAGES * mesh.size)
  ]
  step = jax.jit(jax.grad(loss), out_shardings=setup.states.shardings.params)
  with jax.set_mesh(mesh):
    traced = step.trace(setup.states.abstract.params, key, *inputs)
    lowered = traced.lower(lowering_platforms=('tpu',))
    began = time.process_time()
    lowered.compile()
  return time.process_time() - began


def inputs_of(part: str, config: Any, images: int) -> list[jax.ShapeDtypeStruct]:
  """Returns the inputs of a part, without their sharding."""
  width, grid, size = config.t5.width, config.grid, config.image_size
  fused = grid**2 + TEXT_LENGTH
  is_multi_head = config.variant == 'multi_head'
  # Texts whose features the heads get.
  of_maps, of_scores = (1, 1) if is_multi_head else (2, 4)
  shapes = {
    'ViT': (images, size, size, 3),
    'T5 encoder': (images * config.texts, fused, width),
    'T5 decoder': (images, fused, width),
    'heatmap heads': (images, of_maps, grid, grid, width),
    'score heads': (images, of_scores, grid, grid, width),
  }
  arrays = [jax.ShapeDtypeStruct(shapes[part], config.dtype)]
  if part.startswith('T5'):
    arrays.append(jax.ShapeDtypeStruct(arrays[0].shape[:2], bool))
  if part == 'T5 decoder':
    arrays.append(jax.ShapeDtypeStruct((images, TEXT_LENGTH), jnp.int32))
  return arrays


if __name__ == '__main__':
  app.run(main)
