"""Reads T5X's native checkpoints: an index (`checkpoint`, msgpack) and Zarr arrays.

After `t5/`, our names are theirs. Only `optimizer/target`, the parameters, is read.
"""

import functools
import itertools
import math
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import serialization, traverse_util

from rahf.errors import InputError
from rahf.fileio import lfs_pointer
from rahf.fileio.local_file import is_local, refuse_pointer
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
    InputError: it is not a T5X checkpoint, is of a form that T5X does not write, or
      a file of an array is missing (in a bucket, only reading finds that).
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
  lfs_pointer.check(directory / INDEX, data)
  try:
    tree = serialization.msgpack_restore(data)
    target = tree['optimizer']['target']
  except Exception as error:  # msgpack has many, without a common base.
    raise InputError(
      f'{directory / INDEX} is not the index of a T5X checkpoint '
      f'({type(error).__name__}: {error}); checkpoints of the first T5, in TensorFlow, '
      'are read after T5X has converted them (t5x/scripts/convert_tf_checkpoint.py)'
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
  try:
    # Older T5X wrote the path beside the store, and always where the run was then.
    there = leaf.get('path') or leaf['kvstore'].get('path', '')
    folder = there.rstrip('/').rpartition('/')[2]
    metadata, expected = leaf.get('metadata'), None
    if metadata and 'dtype' in leaf:
      # NumPy alone does not know the name bfloat16.
      expected = _Form(tuple(metadata['shape']), jnp.dtype(leaf['dtype']))
  except (AttributeError, KeyError, TypeError) as error:
    raise InputError(
      f'{directory / INDEX}: {name} is not described as T5X does '
      f'({type(error).__name__}: {error})'
    ) from None
  if folder in ('', '.', '..'):
    raise InputError(f'{directory / INDEX}: {name} refers to the path {there!r}')
  place = directory / folder
  # In a bucket each of these takes a request, and only reading finds what is wrong.
  if is_local(place):
    array = _open(place, name, expected)
    _check_chunks(place, name, array)
    expected = _form(array)
  elif expected is None:
    expected = _form(_open(place, name))
  return Weight(name, *expected, functools.partial(_read, place, name, expected))


class _Form(NamedTuple):
  shape: tuple[int, ...]
  dtype: np.dtype


def _form(array: Any) -> _Form:
  """Returns the shape and dtype of an open array."""
  return _Form(tuple(array.shape), np.dtype(array.dtype.numpy_dtype))


def _check_chunks(place: epath.Path, name: str, array: Any) -> None:
  """Raises InputError if a file of an open array is missing.

  Zarr takes a missing chunk for one that holds nothing but the fill value. T5X declares
  no fill value and writes every chunk, so that a missing one has been lost.
  """
  folder = pathlib.Path(place)
  # Some writers of Zarr put each axis into a folder of its own.
  there = {
    file.relative_to(folder).as_posix().replace('/', '.') for file in folder.rglob('*')
  }
  sizes = zip(array.shape, array.chunk_layout.read_chunk.shape, strict=True)
  grid = [-(-whole // part) for whole, part in sizes]
  for place_in_grid in itertools.product(*map(range, grid)):
    chunk = '.'.join(map(str, place_in_grid)) or '0'
    if chunk not in there:
      share = 'all' if math.prod(grid) == 1 else 'a part'
      raise InputError(
        f'{place / chunk} is missing, which holds {share} of {name}; copy the '
        'checkpoint again'
      )


def _store(place: epath.Path) -> dict[str, str]:
  """Returns where TensorStore finds a folder."""
  path = os.fspath(place)
  if match := re.fullmatch(r'gs://([^/]+)/(.*)', path):
    return {'driver': 'gcs', 'bucket': match[1], 'path': f'{match[2]}/'}
  return {'driver': 'file', 'path': f'{os.path.abspath(path)}/'}


def _open(place: epath.Path, name: str, expected: _Form | None = None) -> Any:
  """Opens an array.

  Raises:
    InputError: it is damaged, or is not of the form that the index says.
  """
  import tensorstore  # Slow to import, and only needed here.

  spec = {
    'driver': 'zarr',
    'kvstore': _store(place),
    # See `_check_chunks`; by default, they are read as zeros.
    'fill_missing_data_reads': False,
  }
  opened = functools.partial(tensorstore.open, spec, open=True, read=True)
  array = _result(opened, place, name)
  found = _form(array)
  if expected and found != expected:
    raise InputError(
      f'{place}: {name} is {list(found.shape)} of {found.dtype}, but the index says '
      f'{list(expected.shape)} of {expected.dtype}'
    )
  return array


def _read(place: epath.Path, name: str, expected: _Form) -> np.ndarray:
  return _result(_open(place, name, expected).read, place, name)


def _result(start: Callable[[], Any], place: epath.Path, name: str) -> Any:
  """Waits for TensorStore, which answers with ValueError to all that is damaged."""
  try:
    return start().result()
  except ValueError as error:
    if is_local(place):
      for file in sorted(pathlib.Path(place).rglob('*')):
        if file.is_file():
          refuse_pointer(file)
    # What follows is the specification that it was opened by.
    problem = str(error).partition(' [')[0]
    raise InputError(
      f'{name} cannot be read from {place}: {problem}; copy the checkpoint again'
    ) from None


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
