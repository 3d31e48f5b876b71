"""Reads T5X's native checkpoints: an index (`checkpoint`, msgpack) and Zarr arrays.

Their names are ours behind `t5/`. Only `optimizer/target`, the parameters, is read.
"""

import functools
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import serialization, traverse_util

from rahf.errors import InputError
from rahf.pretrained.source import Source, Weight

INDEX = 'checkpoint'
OPTIMIZER_STATE = "the optimizer's state"


def find_t5x(path: epath.Path) -> epath.Path | None:
  """Returns the checkpoint directory: this one, or the only `checkpoint_<step>` in it.

  Raises:
    InputError: there are several.
  """
  if (path / INDEX).is_file():
    return path
  inner = sorted(
    child.name
    for child in path.iterdir()
    if re.fullmatch(r'checkpoint_\d+', child.name)
  )
  inner = [name for name in inner if (path / name / INDEX).is_file()]
  if len(inner) > 1:
    raise InputError(f'{path} holds several checkpoints, name one: {", ".join(inner)}')
  return path / inner[0] if inner else None


def open_t5x(path: epath.PathLike) -> Source:
  """Opens a checkpoint without reading its arrays.

  Args:
    path: the directory, or one that holds it (`find_t5x`).

  Raises:
    InputError: it is no T5X checkpoint, or of a form that T5X does not write.
  """
  directory = find_t5x(epath.Path(path))
  if directory is None:
    raise InputError(f'{path} has no file `{INDEX}`, the index of a T5X checkpoint')
  leaves = _read_index(directory)
  weights, ignored = {}, {}
  for name, leaf in leaves.items():
    if name.startswith('optimizer/target/'):
      ours = 't5/' + name.removeprefix('optimizer/target/')
      weights[ours] = _weight(directory, name, leaf)
    elif name.startswith('optimizer/state/'):
      ignored[name] = OPTIMIZER_STATE
    elif name != 'version':
      raise InputError(f'{directory / INDEX}: {name} is not known in T5X checkpoints')
  return Source(
    kind='T5X checkpoint',
    path=str(directory),
    weights=weights,
    ignored=ignored,
    settings=t5_settings(weights, directory),
  )


def _read_index(directory: epath.Path) -> dict[str, Any]:
  """Returns the index, flat; msgpack holds numbers, strings and arrays, no code."""
  data = (directory / INDEX).read_bytes()
  try:
    tree = serialization.msgpack_restore(data)
    target = tree['optimizer']['target']
  except Exception as error:  # msgpack has many, without a common base.
    raise InputError(
      f'{directory / INDEX} is not the index of a T5X checkpoint '
      f'({type(error).__name__}: {error}); checkpoints of the first T5, in TensorFlow, '
      'and of other trainers cannot be read'
    ) from error
  if not isinstance(target, dict):
    raise InputError(
      f'{directory / INDEX}: optimizer/target is {type(target).__name__}'
    )
  return traverse_util.flatten_dict(
    tree, sep='/', is_leaf=lambda path, node: 'kvstore' in node
  )


def _weight(directory: epath.Path, name: str, leaf: Any) -> Weight:
  if isinstance(leaf, np.ndarray):
    return Weight(name, leaf.shape, leaf.dtype, lambda: leaf)
  if not isinstance(leaf, dict) or leaf.get('driver') != 'zarr':
    shown = leaf if isinstance(leaf, str) else type(leaf).__name__
    raise InputError(
      f'{directory / INDEX}: {name} is neither an array nor refers to a Zarr array, '
      f'but is {shown}'
    )
  # Older T5X wrote the path beside the store, and always where the run was then.
  there = leaf.get('path') or leaf['kvstore'].get('path', '')
  folder = there.rstrip('/').rpartition('/')[2]
  if folder in ('', '.', '..'):
    raise InputError(f'{directory / INDEX}: {name} refers to the path {there!r}')
  spec = {'driver': 'zarr', 'kvstore': _store(directory / folder)}
  metadata = leaf.get('metadata')
  if not metadata or 'dtype' not in leaf:
    array = _open(spec, name)
    shape, dtype = array.shape, array.dtype.numpy_dtype
  else:
    # NumPy alone does not know the name bfloat16.
    shape, dtype = tuple(metadata['shape']), jnp.dtype(leaf['dtype'])
  return Weight(name, shape, dtype, functools.partial(_read, spec, name, shape))


def _store(folder: epath.Path) -> dict[str, str]:
  """Returns where TensorStore finds a folder."""
  path = os.fspath(folder)
  if match := re.fullmatch(r'gs://([^/]+)/(.*)', path):
    return {'driver': 'gcs', 'bucket': match[1], 'path': f'{match[2]}/'}
  return {'driver': 'file', 'path': f'{os.path.abspath(path)}/'}


def _open(spec: dict[str, Any], name: str) -> Any:
  import tensorstore  # Slow to import, and only needed here.

  opened = functools.partial(tensorstore.open, spec, open=True, read=True)
  return _result(opened, spec, name)


def _read(spec: dict[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
  array = _open(spec, name)
  if tuple(array.shape) != shape:
    raise InputError(
      f'{spec["kvstore"]["path"]}: the shape of {name} is {list(array.shape)}, but the '
      f'index says {list(shape)}'
    )
  return _result(array.read, spec, name)


def _result(start: Callable[[], Any], spec: dict[str, Any], name: str) -> Any:
  """Waits for TensorStore, which answers with ValueError to all that is damaged."""
  try:
    return start().result()
  except ValueError as error:
    raise InputError(f'{name} cannot be read from {spec["kvstore"]}: {error}') from None


def t5_settings(weights: Mapping[str, Weight], where: epath.PathLike) -> dict[str, Any]:
  """Returns the sizes; v1.0 and v1.1 differ in the parameters that they have.

  Raises:
    InputError: there is no T5 among the weights of `where`.
  """

  def shape(path: str, rank: int) -> tuple[int, ...]:
    weight = weights.get(f't5/{path}')
    if weight is None or len(weight.shape) != rank:
      found = f'its shape is {weight.shape}' if weight else 'it is missing'
      raise InputError(f'{where} does not hold a T5: {path}: {found}')
    return weight.shape

  def layers(side: str) -> int:
    return len({p.split('/')[2] for p in weights if f't5/{side}/layers_' in p})

  gated = 't5/encoder/layers_0/mlp/wi_0/kernel' in weights
  heads = shape('encoder/relpos_bias/rel_embedding', 2)[0]
  width, joined = shape('encoder/layers_0/attention/query/kernel', 2)
  wi = shape(f'encoder/layers_0/mlp/wi{"_0" if gated else ""}/kernel', 2)
  return {
    't5.vocab_size': shape('token_embedder/embedding', 2)[0],
    't5.width': width,
    't5.heads': heads,
    't5.head_dim': joined // heads,
    't5.mlp': wi[1],
    't5.encoder_layers': layers('encoder'),
    't5.decoder_layers': layers('decoder'),
    # The files do not name the activations, but T5X knows no others.
    't5.activations': ('gelu', 'linear') if gated else ('relu',),
    't5.tied_logits': 't5/decoder/logits_dense/kernel' not in weights,
  }
