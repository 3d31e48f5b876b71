"""Writes files in both formats of torch.save, but without PyTorch."""

import io
import math
import pickle
import zipfile
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

NAME = 'archive'
ORDERED_DICT = b'ccollections\nOrderedDict\n)R'
STORAGES = {
  'float32': 'FloatStorage',
  'float16': 'HalfStorage',
  'bfloat16': 'BFloat16Storage',
  'int64': 'LongStorage',
}


class View(NamedTuple):
  """A tensor: a view of a storage, which other tensors may share."""

  storage: np.ndarray
  shape: tuple[int, ...]
  strides: tuple[int, ...]
  offset: int = 0
  bits: dict[str, bool] | None = None  # Deferred operations: 'neg', 'conj'.


def contiguous(array: np.ndarray) -> View:
  """Returns a tensor with its own storage."""
  strides = [math.prod(array.shape[i + 1 :]) for i in range(array.ndim)]
  return View(np.ascontiguousarray(array).reshape(-1), array.shape, tuple(strides))


def constant(shape: tuple[int, ...]) -> View:
  """Returns a tensor of any size that stores a single value."""
  return View(np.ones(1, np.float32), tuple(shape), (0,) * len(shape))


def write_state_dict(path, views: Mapping[str, View], *, order='little', wrapper=''):
  """Writes a state dict; `wrapper` is the key of a dict around it."""
  code, storages = _state_dict(views)
  if wrapper:
    code = b'}(' + plain(wrapper) + code + plain('epoch') + plain(3) + b'u'
  words = {str(key): v.view(f'u{v.itemsize}') for key, v in enumerate(storages)}
  if order == 'big':
    words = {key: values.byteswap() for key, values in words.items()}
  write_archive(path, code, words, order)


def write_legacy(path, views: Mapping[str, View], *, code: bytes = b''):
  """Writes a state dict as PyTorch before 1.6 did.

  Args:
    code: the opcodes of the pickled object, in place of those of the state dict.
  """
  state, storages = _state_dict(views, legacy=True)
  system = {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {}}
  keys = [str(key) for key in range(len(storages))]
  with open(path, 'wb') as stream:
    for part in (0x1950A86A20F9469CFC6C, 1001, system):
      pickle.dump(part, stream, protocol=2)
    stream.write(b'\x80\x02' + (code or state) + b'.')
    pickle.dump(keys, stream, protocol=2)
    for values in storages:
      stream.write(values.size.to_bytes(8, 'little'))
      stream.write(np.ascontiguousarray(values).view(f'u{values.itemsize}').data)


def _state_dict(views: Mapping[str, View], legacy=False):
  """Returns the opcodes of a state dict, and its storages."""
  storages, code = [], ORDERED_DICT + b'('
  for name, view in views.items():
    keys = [key for key, values in enumerate(storages) if values is view.storage]
    if not keys:
      keys = [len(storages)]
      storages.append(view.storage)
    code += plain(name) + tensor(str(keys[0]), view, legacy)
  # Modules attach their versions.
  return code + b'u}' + plain('_metadata') + ORDERED_DICT + b'sb', storages


def write_archive(
  path, code: bytes, storages: Mapping[str, np.ndarray], order='little'
):
  """Writes an archive with a pickle, given without its first and last opcodes."""
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr(f'{NAME}/data.pkl', b'\x80\x02' + code + b'.')
    if order:
      archive.writestr(f'{NAME}/byteorder', order)
    for key, values in storages.items():
      with archive.open(f'{NAME}/data/{key}', 'w') as stream:
        stream.write(values.data)
    archive.writestr(f'{NAME}/version', '3\n')


def tensor(key: str, view: View, legacy=False) -> bytes:
  """Returns the opcodes that make a tensor."""
  storage = STORAGES[str(view.storage.dtype)].encode()
  return b''.join(
    [
      b'ctorch._utils\n_rebuild_tensor_v2\n((',
      plain('storage') + b'ctorch\n' + storage + b'\n',
      plain(key) + plain('cpu') + plain(view.storage.size) + b'N' * legacy + b'tQ',
      plain(view.offset) + plain(view.shape) + plain(view.strides),
      b'\x89' + ORDERED_DICT + (b'' if view.bits is None else plain(view.bits)) + b'tR',
    ]
  )


def plain(value) -> bytes:
  """Returns the opcodes that make a constant, or run what it reduces to."""
  stream = io.BytesIO()
  pickle.Pickler(stream, protocol=2).dump(value)
  return stream.getvalue()[2:-1]
