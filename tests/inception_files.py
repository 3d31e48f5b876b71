"""FID's Inception with parameters by a formula, in the names of pytorch-fid's file."""

import math

import numpy as np

from golden_noise import noise

# Convolutions before the blocks: name, inputs, outputs, size.
STEM = (
  ('Conv2d_1a_3x3', 3, 32, 3),
  ('Conv2d_2a_3x3', 32, 32, 3),
  ('Conv2d_2b_3x3', 32, 64, 3),
  ('Conv2d_3b_1x1', 64, 80, 1),
  ('Conv2d_4a_3x3', 80, 192, 3),
)


def shapes() -> dict[str, tuple[int, ...]]:
  """Returns the shapes of the state dict by name."""
  found = {}

  def unit(name, inputs, outputs, size):
    tall, wide = size if isinstance(size, tuple) else (size, size)
    found[f'{name}.conv.weight'] = (outputs, inputs, tall, wide)
    for part in ('weight', 'bias', 'running_mean', 'running_var'):
      found[f'{name}.bn.{part}'] = (outputs,)
    found[f'{name}.bn.num_batches_tracked'] = ()

  def branch(block, prefix, inputs, *units):
    """Adds convolutions one after the other: suffix, outputs, size."""
    for suffix, outputs, size in units:
      unit(f'{block}.{prefix}{suffix}', inputs, outputs, size)
      inputs = outputs

  for name, *sizes in STEM:
    unit(name, *sizes)
  for name, inputs, pooled in (('5b', 192, 32), ('5c', 256, 64), ('5d', 288, 64)):
    block = f'Mixed_{name}'
    branch(block, 'branch1x1', inputs, ('', 64, 1))
    branch(block, 'branch5x5', inputs, ('_1', 48, 1), ('_2', 64, 5))
    double = ('_1', 64, 1), ('_2', 96, 3), ('_3', 96, 3)
    branch(block, 'branch3x3dbl', inputs, *double)
    branch(block, 'branch_pool', inputs, ('', pooled, 1))
  branch('Mixed_6a', 'branch3x3', 288, ('', 384, 3))
  branch('Mixed_6a', 'branch3x3dbl', 288, *double)
  row, column = (1, 7), (7, 1)
  for name, width in (('6b', 128), ('6c', 160), ('6d', 160), ('6e', 192)):
    block = f'Mixed_{name}'
    branch(block, 'branch1x1', 768, ('', 192, 1))
    single = ('_1', width, 1), ('_2', width, row), ('_3', 192, column)
    branch(block, 'branch7x7', 768, *single)
    double = ('_1', width, 1), ('_2', width, column), ('_3', width, row)
    double += ('_4', width, column), ('_5', 192, row)
    branch(block, 'branch7x7dbl', 768, *double)
    branch(block, 'branch_pool', 768, ('', 192, 1))
  branch('Mixed_7a', 'branch3x3', 768, ('_1', 192, 1), ('_2', 320, 3))
  seven = ('_1', 192, 1), ('_2', 192, row), ('_3', 192, column), ('_4', 192, 3)
  branch('Mixed_7a', 'branch7x7x3', 768, *seven)
  for name, inputs in (('7b', 1280), ('7c', 2048)):
    block = f'Mixed_{name}'
    branch(block, 'branch1x1', inputs, ('', 320, 1))
    branch(block, 'branch3x3', inputs, ('_1', 384, 1))
    branch(block, 'branch3x3dbl', inputs, ('_1', 448, 1), ('_2', 384, 3))
    for end in ('branch3x3_2', 'branch3x3dbl_3'):
      branch(block, end, 384, ('a', 384, (1, 3)))
      branch(block, end, 384, ('b', 384, (3, 1)))
    branch(block, 'branch_pool', inputs, ('', 192, 1))
  return found | {'fc.weight': (1008, 2048), 'fc.bias': (1008,)}


def arrays() -> dict[str, np.ndarray]:
  """Returns the state dict of the golden `inception.json`."""
  by_name = shapes()
  return {n: _values(k, n, by_name[n]) for k, n in enumerate(sorted(by_name))}


def _values(number: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
  if name.endswith('num_batches_tracked'):
    return np.zeros(shape, np.int64)
  wave = noise(number, shape)
  if name.endswith('running_var'):
    wave = 1 + wave / 2
  elif len(shape) == 4:
    wave = wave * math.sqrt(6 / math.prod(shape[1:]))
  elif len(shape) == 1 and name.endswith('weight'):
    wave = 1.2 + wave / 10
  else:
    wave = wave / 10 if len(shape) == 1 else wave / 50
  return wave.astype(np.float32)
