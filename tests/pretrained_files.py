"""Writes given values to small files in the formats of other projects."""

import pathlib
from collections.abc import Mapping

import flax
import numpy as np
import tensorstore


def write_t5x(folder: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> pathlib.Path:
  """Writes a T5X checkpoint: an index, and a Zarr array for each parameter.

  Args:
    arrays: by path below `t5/`, such as 'encoder/encoder_norm/scale'.
  """
  folder.mkdir()
  target = {}
  for name, array in arrays.items():
    array = np.asarray(array)
    array_path = f'target.{name.replace("/", ".")}/'
    spec = {
      'driver': 'zarr',
      'dtype': 'float32',
      'kvstore': {'driver': 'file', 'path': f'{folder}/{array_path}'},
      'metadata': {'shape': list(array.shape), 'compressor': {'id': 'gzip'}},
    }
    tensorstore.open(spec, create=True).result().write(array).result()
    target[tuple(name.split('/'))] = spec | {
      'kvstore': {'driver': 'file', 'path': array_path}
    }
  tree = {
    'target': flax.traverse_util.unflatten_dict(target),
    'state': {'step': 0, 'param_states': {}},
  }
  index = flax.serialization.msgpack_serialize({'version': 3, 'optimizer': tree})
  (folder / 'checkpoint').write_bytes(index)
  return folder


def write_vit(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> pathlib.Path:
  """Writes a ViT release, a classifier included; paths are those below `vit/`."""
  classes = np.zeros(10, np.float32)
  np.savez(path, **arrays, **{'head/bias': classes})
  return path
