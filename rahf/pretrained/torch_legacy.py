"""Safely reads files of PyTorch before 1.6, without PyTorch.

Such a file is a row of pickles (a magic number, a version, the machine's sizes, the
state dict, the keys of the storages) and then the storages, each after its length. Some
public weights have this format still, FID's Inception among them. The pickles can do as
little as those of `torch_archive`.
"""

import os
from typing import Any, BinaryIO, NoReturn

import numpy as np
from etils import epath

from rahf.pretrained.torch_archive import (
  ArchiveError,
  StateUnpickler,
  Storage,
  StorageType,
  Tensor,
  state_tensors,
)

# The pickle of PyTorch's magic number, 0x1950a86a20f9469cfc6c.
MAGIC = b'\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e'
VERSION = 1001
LENGTH_BYTES = 8


class LegacyFile:
  """A file whose storages are read on demand; replaces `torch_archive.Archive`."""

  def __init__(self, path: epath.PathLike):
    self.path = epath.Path(path)
    self._starts: dict[str, int] = {}
    self.storages: dict[str, Storage] = {}

  def fail(self, problem: str) -> NoReturn:
    raise ArchiveError(f'{self.path} {problem}') from None

  def load(self) -> Any:
    """Returns the pickled object, with `Tensor` for tensors.

    Raises:
      ArchiveError: the file is damaged, or its pickles do more than describe tensors.
    """
    with self.path.open('rb') as stream:
      if stream.read(len(MAGIC)) != MAGIC:
        self.fail('does not begin as files of PyTorch before 1.6 do')
      version, system, state, keys = (self._unpickle(stream) for _ in range(4))
      if version != VERSION or not isinstance(system, dict):
        self.fail(f'has version {version!r:.20}, not {VERSION}; save it again')
      if system.get('little_endian') is not True:
        self.fail('has values in big-endian byte order; save it on another machine')
      if not isinstance(keys, list) or {*map(str, keys)} != self.storages.keys():
        self.fail('lists other storages than its tensors have; copy it again')
      self._find_storages(stream, keys)
    return state

  def check(self, tensor: Tensor) -> None:
    """Raises ArchiveError if a tensor is not within its storage."""
    if tensor.offset + tensor.extent > tensor.storage.size:
      self.fail(f'has a tensor that ends beyond its storage {tensor.storage.key}')

  def read(self, storage: Storage, offset: int, count: int) -> np.ndarray:
    """Returns `count` values of a storage as a flat array."""
    width = storage.dtype.itemsize
    with self.path.open('rb') as stream:
      stream.seek(self._starts[storage.key] + offset * width)
      data = stream.read(count * width)
    if len(data) != count * width:
      self.fail('was truncated while being read; copy it again')
    values = np.frombuffer(data, f'<u{width}').astype(f'u{width}', copy=False)
    return values.view(storage.dtype)

  def _unpickle(self, stream: BinaryIO) -> Any:
    try:
      return _Unpickler(self, stream).load()
    except ArchiveError:
      raise
    except Exception as error:  # A broken pickle can raise anything.
      self.fail(f'has a damaged pickle: {type(error).__name__}: {error}')

  def _find_storages(self, stream: BinaryIO, keys: list[str]) -> None:
    """Notes where each storage starts."""
    position = stream.tell()
    end = stream.seek(0, os.SEEK_END)
    for key in keys:
      stream.seek(position)
      size = int.from_bytes(stream.read(LENGTH_BYTES), 'little')
      storage = self.storages[str(key)]
      self._starts[storage.key] = position + LENGTH_BYTES
      position += LENGTH_BYTES + storage.size * storage.dtype.itemsize
      if size != storage.size or position > end:
        self.fail(f'is truncated or damaged in storage {storage.key}; copy it again')
    if position != end:
      self.fail('has more bytes than its tensors; copy it again')


class _Unpickler(StateUnpickler):
  def persistent_load(self, pid: Any) -> Storage:
    match pid:
      case ('storage', StorageType(dtype), str(key), str(), int(size), None) if (
        size >= 0
      ):
        storage = Storage(self._archive, key, dtype, size)
        if self._archive.storages.setdefault(key, storage) == storage:
          return storage
    self._archive.fail(f'refers to something that is not a storage: {pid!r:.80}')


def is_legacy(path: epath.PathLike) -> bool:
  """Returns whether a file begins as `torch.save` of PyTorch before 1.6 wrote it."""
  with epath.Path(path).open('rb') as stream:
    return stream.read(len(MAGIC)) == MAGIC


def open_legacy(path: epath.PathLike) -> dict[str, Tensor]:
  """Returns the tensors of a state dict by name, as `torch_archive.open_torch` does.

  Raises:
    ArchiveError: it is damaged, or its pickles do more than describe tensors.
  """
  file = LegacyFile(path)
  return state_tensors(file, file.load())
