"""Reads T5X's native checkpoints: an index (`checkpoint`, msgpack) and Zarr arrays.

Our names are T5X's after the prefix `t5/`. Only the parameters, `optimizer/target`, are
read.
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
from rahf.fileio.local_file import refuse_pointer
from rahf.fileio.paths import is_local
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
    raise InputError(
      f'{path} contains several checkpoints; name one: {", ".join(inner)}'
    )
  return path / inner[0] if inner else None


def open_t5x(path: epath.PathLike) -> Source:
  """Opens a checkpoint without reading its arrays.

  Args:
    path: the directory, or its parent (`find_t5x`).

  Raises:
    InputError: it is not a T5X checkpoint, or a file of an array is missing (in a
      bucket, this is detected only when reading the array).
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
      raise InputError(f'{directory / INDEX}: {name} is unknown in T5X checkpoints')
  return Source(
    kind='T5X checkpoint',
    path=str(directory),
    weights=weights,
    ignored=ignored,
    settings=t5_settings(weights, directory),
  )


def _read_index(directory: epath.Path) -> dict[str, Any]:
  """Returns the flattened index; msgpack contains data only, no code."""
  data = (directory / INDEX).read_bytes()
  lfs_pointer.check(directory / INDEX, data)
  try:
    tree = serialization.msgpack_restore(data)
    target = tree['optimizer']['target']
  except Exception as error:  # msgpack's exceptions have no common base.
    raise InputError(
      f'{directory / INDEX} is not the index of a T5X checkpoint '
      f'({type(error).__name__}: {error}); convert TensorFlow checkpoints of the '
      'original T5 with t5x/scripts/convert_tf_checkpoint.py first'
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
      f'{directory / INDEX}: {name} is {shown}, neither an array nor a reference to a '
      'Zarr array'
    )
  try:
    # Older T5X wrote the path outside `kvstore`. It is always that of the original run.
    stored_path = leaf.get('path') or leaf['kvstore'].get('path', '')
    folder = stored_path.rstrip('/').rpartition('/')[2]
    metadata, expected = leaf.get('metadata'), None
    if metadata and 'dtype' in leaf:
      # np.dtype does not know the name bfloat16.
      expected = _ArraySpec(tuple(metadata['shape']), jnp.dtype(leaf['dtype']))
  except (AttributeError, KeyError, TypeError) as error:
    raise InputError(
      f'{directory / INDEX}: {name} is not described as in T5X checkpoints '
      f'({type(error).__name__}: {error})'
    ) from None
  if folder in ('', '.', '..'):
    raise InputError(f'{directory / INDEX}: {name} refers to the path {stored_path!r}')
  array_dir = directory / folder
  # In a bucket, each of these checks would take a request; reading detects the errors.
  if is_local(array_dir):
    array = _open(array_dir, name, expected)
    _check_chunks(array_dir, name, array)
    expected = _spec_of(array)
  elif expected is None:
    expected = _spec_of(_open(array_dir, name))
  return Weight(name, *expected, functools.partial(_read, array_dir, name, expected))


class _ArraySpec(NamedTuple):
  shape: tuple[int, ...]
  dtype: np.dtype


def _spec_of(array: Any) -> _ArraySpec:
  """Returns the shape and dtype of an open array."""
  return _ArraySpec(tuple(array.shape), np.dtype(array.dtype.numpy_dtype))


def _check_chunks(array_dir: epath.Path, name: str, array: Any) -> None:
  """Raises InputError if a file of an open array is missing.

  Zarr takes a missing chunk as filled with the fill value. T5X declares no fill value
  and writes every chunk, so a missing one has been lost.
  """
  folder = pathlib.Path(array_dir)
  # Some Zarr writers use a nested folder for each axis.
  existing = {
    file.relative_to(folder).as_posix().replace('/', '.') for file in folder.rglob('*')
  }
  sizes = zip(array.shape, array.chunk_layout.read_chunk.shape, strict=True)
  grid = [-(-whole // part) for whole, part in sizes]
  for position in itertools.product(*map(range, grid)):
    chunk = '.'.join(map(str, position)) or '0'
    if chunk not in existing:
      share = 'all' if math.prod(grid) == 1 else 'a part'
      raise InputError(
        f'{array_dir / chunk} is missing, which contains {share} of {name}; copy the '
        'checkpoint again'
      )


def _store(array_dir: epath.Path) -> dict[str, str]:
  """Returns TensorStore's spec of a folder."""
  path = os.fspath(array_dir)
  if match := re.fullmatch(r'gs://([^/]+)/(.*)', path):
    return {'driver': 'gcs', 'bucket': match[1], 'path': f'{match[2]}/'}
  return {'driver': 'file', 'path': f'{os.path.abspath(path)}/'}


def _open(array_dir: epath.Path, name: str, expected: _ArraySpec | None = None) -> Any:
  """Opens an array.

  Raises:
    InputError: it is damaged, or its shape or dtype differs from the index.
  """
  import tensorstore  # Slow to import, and only needed here.

  spec = {
    'driver': 'zarr',
    'kvstore': _store(array_dir),
    # By default, missing chunks are read as zeros; see `_check_chunks`.
    'fill_missing_data_reads': False,
  }
  opened = functools.partial(tensorstore.open, spec, open=True, read=True)
  array = _result(opened, array_dir, name)
  found = _spec_of(array)
  if expected and found != expected:
    raise InputError(
      f'{array_dir}: {name} is {list(found.shape)} of {found.dtype}, but the index '
      f'says {list(expected.shape)} of {expected.dtype}'
    )
  return array


def _read(array_dir: epath.Path, name: str, expected: _ArraySpec) -> np.ndarray:
  return _result(_open(array_dir, name, expected).read, array_dir, name)


def _result(start: Callable[[], Any], array_dir: epath.Path, name: str) -> Any:
  """Waits for TensorStore, which raises ValueError for all kinds of damage."""
  try:
    return start().result()
  except ValueError as error:
    if is_local(array_dir):
      for file in sorted(pathlib.Path(array_dir).rglob('*')):
        if file.is_file():
          refuse_pointer(file)
    # The rest of the message is the spec.
    problem = str(error).partition(' [')[0]
    raise InputError(
      f'{name} cannot be read from {array_dir}: {problem}; copy the checkpoint again'
    ) from None


def t5_settings(weights: Mapping[str, Weight], where: epath.PathLike) -> dict[str, Any]:
  """Returns the settings that a T5's arrays determine, v1.0 or v1.1.

  Raises:
    InputError: there is no T5 among the weights of `where`.
  """

  def shape(path: str, rank: int) -> tuple[int, ...]:
    weight = weights.get(f't5/{path}')
    if weight is None or len(weight.shape) != rank:
      found = f'its shape is {weight.shape}' if weight else 'it is missing'
      raise InputError(f'{where} does not contain a T5: {path}: {found}')
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
    # The files do not name the activations, but T5X has no others.
    't5.activations': ('gelu', 'linear') if gated else ('relu',),
    't5.tied_logits': 't5/decoder/logits_dense/kernel' not in weights,
  }
