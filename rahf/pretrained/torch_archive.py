"""Safely reads PyTorch's zip archives (`torch.save`), without PyTorch.

Such an archive has a pickle, `data.pkl`, which describes the tensors, and a file for
each storage. Pickles may call any function. Here, they can only refer to the few that
tensors need, which are replaced by stand-ins that only record their arguments. Only
dense tensors of the dtypes in STORAGES are read; anything else is refused by name.
"""

import contextlib
import dataclasses
import pickle
import weakref
import zipfile
from collections.abc import Iterator
from typing import Any, NoReturn

import jax.numpy as jnp
import numpy as np
from etils import epath

from rahf.errors import InputError
from rahf.fileio import lfs_pointer

STORAGES = {
  'BFloat16Storage': 'bfloat16',
  'DoubleStorage': 'float64',
  'FloatStorage': 'float32',
  'HalfStorage': 'float16',
  'LongStorage': 'int64',
}
# Keys under which a checkpoint may contain the state dict.
WRAPPERS = ('model', 'state_dict')
SUPPORTED_HINT = (
  'only dense tensors of bfloat16, float16, float32, float64 and int64 can be read; '
  'convert the tensors in PyTorch and save the state dict again'
)
RESAVE_HINT = (
  'if you trust its origin, load it in PyTorch and save only its state dict with '
  'torch.save'
)

SCRIPT_DEPTH = 50  # Levels of modules.

CHUNK_BYTES = 1 << 20  # read at a time when verifying checksums


class ArchiveError(InputError):
  """A file is not a PyTorch archive, is damaged, or is not safe to read."""


class _Immutable:
  """An object that a pickle's BUILD instruction cannot change."""

  def __setstate__(self, state: Any) -> None:
    raise TypeError(f'{type(self).__name__} has no state')


@dataclasses.dataclass(frozen=True)
class Storage(_Immutable):
  """A file of an archive with the values of one or more tensors."""

  archive: 'Archive'
  key: str
  dtype: np.dtype
  size: int


@dataclasses.dataclass(frozen=True)
class Tensor(_Immutable):
  """A tensor of an archive, read on demand.

  Attributes:
    storage: of its values; tensors that share memory share it.
    offset: of its first value in the storage, in values.
    shape: as in PyTorch.
    strides: in values.
    negative: whether the storage has the values with the opposite sign, as for the
      imaginary part of a complex conjugate (`torch.Tensor.is_neg`).
  """

  storage: Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]
  negative: bool = False

  @property
  def extent(self) -> int:
    """Number of values in the storage from its first to its last, inclusive."""
    if 0 in self.shape:
      return 0
    steps = zip(self.shape, self.strides, strict=True)
    return 1 + sum((size - 1) * stride for size, stride in steps)

  def read(self) -> np.ndarray:
    """Returns the values, in this machine's byte order.

    Raises:
      ArchiveError: the file is damaged.
    """
    values = self.storage.archive.read(self.storage, self.offset, self.extent)
    strides = [stride * values.itemsize for stride in self.strides]
    array = np.lib.stride_tricks.as_strided(
      values, self.shape, strides, writeable=False
    )
    return -array if self.negative else array


class Archive:
  """An open file, closed when neither it nor any of its tensors is referenced."""

  def __init__(self, path: epath.PathLike):
    """Opens a file, local or in a bucket.

    Raises:
      ArchiveError: it is not such an archive, or is damaged.
    """
    self.path = epath.Path(path)
    stream = self.path.open('rb')
    weakref.finalize(self, stream.close)
    try:
      self._zip = zipfile.ZipFile(stream)
    except zipfile.BadZipFile as error:
      stream.seek(0)
      start = stream.read(len(lfs_pointer.START))
      lfs_pointer.check(self.path, start)
      if start[:1] == b'\x80':
        self.fail(
          f'is a pickle, as written by PyTorch before 1.6, and not read: {RESAVE_HINT}'
        )
      self.fail(f'is not a PyTorch archive, or truncated ({error}); copy it again')
    pickles = [n for n in self._zip.namelist() if n.split('/')[1:] == ['data.pkl']]
    if len(pickles) != 1:
      self.fail('is a zip archive, but not from PyTorch: it has no data.pkl')
    self._verified: set[str] = set()
    self._root = pickles[0].removesuffix('data.pkl')
    # Archives from PyTorch before 2.1 do not say; assume little-endian.
    order = 'little'
    if f'{self._root}byteorder' in self._zip.namelist():
      order = self._bytes('byteorder').decode('ascii', 'replace')
    if order not in ('little', 'big'):
      self.fail(f'has values in {order!r} byte order, not little or big')
    self._order = {'little': '<', 'big': '>'}[order]

  def fail(self, problem: str) -> NoReturn:
    raise ArchiveError(f'{self.path} {problem}') from None

  def load(self) -> Any:
    """Returns the object in `data.pkl`, with `Tensor` for tensors."""
    try:
      with self._open('data.pkl') as stream:
        return StateUnpickler(self, stream).load()
    except ArchiveError:
      raise
    except Exception as error:  # A broken pickle can raise anything.
      self.fail(f'has a damaged data.pkl: {type(error).__name__}: {error}')

  def check(self, tensor: Tensor) -> None:
    """Raises ArchiveError if a tensor is not within its file."""
    storage = tensor.storage
    try:
      size = self._zip.getinfo(f'{self._root}data/{storage.key}').file_size
    except KeyError:
      self.fail(f'lacks data/{storage.key}')
    if size != storage.size * storage.dtype.itemsize:
      self.fail(
        f'has {size} bytes in data/{storage.key}, which should have {storage.size} '
        f'values of {storage.dtype}'
      )
    if tensor.offset + tensor.extent > storage.size:
      self.fail(f'has a tensor that ends beyond data/{storage.key}')

  def read(self, storage: Storage, offset: int, count: int) -> np.ndarray:
    """Returns `count` values of a storage as a flat array."""
    width, name = storage.dtype.itemsize, f'data/{storage.key}'
    if count < storage.size and name not in self._verified:
      # zipfile verifies checksums only of files that are read from start to end.
      self._verify(name)
      self._verified.add(name)
    data = self._bytes(name, offset * width, count * width)
    # NumPy cannot swap bytes of bfloat16.
    values = np.frombuffer(data, f'{self._order}u{width}').astype(
      f'u{width}', copy=False
    )
    return values.view(storage.dtype)

  def _open(self, name: str) -> Any:
    info = self._zip.getinfo(self._root + name)
    # A small compressed file could fill the memory.
    if info.compress_type != zipfile.ZIP_STORED:
      self.fail(f'has {name} compressed, which torch.save never does; save it again')
    return self._zip.open(info)

  def _verify(self, name: str) -> None:
    """Reads a file in chunks, which verifies its checksum."""
    with self._report_damage(name), self._open(name) as stream:
      while stream.read(CHUNK_BYTES):
        pass

  def _bytes(self, name: str, start: int = 0, count: int = -1) -> bytes:
    with self._report_damage(name), self._open(name) as stream:
      stream.seek(start)
      data = stream.read(count)
    if count >= 0 and len(data) != count:
      self.fail(f'is truncated in {name}; copy it again')
    return data

  @contextlib.contextmanager
  def _report_damage(self, name: str) -> Iterator[None]:
    try:
      yield
    except (EOFError, OSError, zipfile.BadZipFile) as error:
      self.fail(
        f'is damaged in {name}: {error}; copy it again, or save it again if it was '
        'saved without checksums (torch.serialization.set_crc32_options)'
      )


class _Dict(dict):
  """Replaces OrderedDict; drops the attribute that PyTorch attaches (`_metadata`)."""

  def __setstate__(self, state: Any) -> None:
    pass


@dataclasses.dataclass(frozen=True)
class StorageType(_Immutable):
  dtype: np.dtype


class _ScriptModule:
  """Stands for a module of TorchScript; its code, beside the pickle, is not read."""

  attributes: dict[str, Any] | None = None

  def __setstate__(self, state: Any) -> None:
    if self.attributes is not None or not isinstance(state, dict):
      raise TypeError('the state of a TorchScript module is one dict')
    self.attributes = state

  def tensors(self, prefix: str = '', depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yields all tensors below the module by their names in a state dict."""
    if depth > SCRIPT_DEPTH:
      raise ValueError('its modules are nested without end')
    for name, value in (self.attributes or {}).items():
      if isinstance(value, Tensor):
        yield f'{prefix}{name}', value
      elif isinstance(value, _ScriptModule):
        yield from value.tensors(f'{prefix}{name}.', depth + 1)


class StateUnpickler(pickle.Unpickler):
  """Builds dicts, numbers, strings and `Tensor`; refuses everything else by name."""

  def __init__(self, archive: Archive, stream: Any):
    super().__init__(stream)
    self._archive = archive

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) == ('collections', 'OrderedDict'):
      return _Dict
    if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
      return self._tensor
    if (module, name) == ('torch._utils', '_rebuild_parameter'):
      return self._parameter
    if module == 'torch' and name in STORAGES:
      return StorageType(jnp.dtype(STORAGES[name]))
    if module == '__torch__' or module.startswith('__torch__.'):
      return _ScriptModule
    if (module, name[-7:]) == ('torch', 'Storage') or module.startswith('torch._'):
      self._archive.fail(
        f'refers to {module}.{name}, which was not run: {SUPPORTED_HINT}'
      )
    self._archive.fail(
      f'refers to {module}.{name}, which weights do not need and which could do harm; '
      f'it was not run: {RESAVE_HINT}'
    )

  def persistent_load(self, pid: Any) -> Storage:
    match pid:
      case ('storage', StorageType(dtype), str(key), str(), int(size)) if size >= 0:
        return Storage(self._archive, key, dtype, size)
    self._archive.fail(f'refers to something that is not a storage: {pid!r:.80}')

  def _tensor(
    self,
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    _requires_grad: Any = None,
    _hooks: Any = None,
    bits: Any = None,
  ) -> Tensor:
    numbers = [shape, strides, (offset,)]
    if (
      not isinstance(storage, Storage)
      or not all(isinstance(group, tuple) for group in numbers)
      or not all(type(n) is int and n >= 0 for group in numbers for n in group)
      or len(shape) != len(strides)
    ):
      self._archive.fail('has a tensor with an invalid description')
    # Operations that PyTorch applies lazily.
    bits = bits or {}
    if not isinstance(bits, dict) or any(bits[key] for key in bits if key != 'neg'):
      self._archive.fail(
        f'has a tensor with the properties {bits!r:.80}: {SUPPORTED_HINT}'
      )
    tensor = Tensor(storage, offset, shape, strides, bool(bits.get('neg')))
    self._archive.check(tensor)
    return tensor

  def _parameter(self, tensor: Any, *_: Any) -> Any:
    return tensor


def open_torch(path: epath.PathLike) -> dict[str, Tensor]:
  """Returns the tensors of a state dict by name, without reading their values.

  The file contains the state dict, or a dict with it under 'model' or 'state_dict'. Of
  a TorchScript file, such as OpenAI's CLIP, only the tensors are read.

  Args:
    path: a file written by `torch.save` of PyTorch 1.6 or newer, or by
      `torch.jit.save`; local or gs://.

  Raises:
    ArchiveError: it is something else, is damaged, or its pickle does more than
      describe tensors.
  """
  archive = Archive(path)
  state = archive.load()
  if isinstance(state, _ScriptModule):
    try:
      return dict(state.tensors())
    except ValueError as error:
      archive.fail(f'is damaged: {error}')
  return state_tensors(archive, state)


def state_tensors(archive: Any, state: Any) -> dict[str, Tensor]:
  """Returns the tensors of an unpickled state dict, or of one in WRAPPERS.

  Args:
    archive: the file, for errors.

  Raises:
    ArchiveError: it is not a state dict.
  """
  if isinstance(state, dict):
    inner = [state[k] for k in WRAPPERS if isinstance(state.get(k), dict)]
    state = inner[0] if len(inner) == 1 else state
  if not isinstance(state, dict):
    archive.fail(
      f'contains {type(state).__name__}, not a state dict; save only the state dict, '
      'with torch.save(model.state_dict(), …)'
    )
  for name, value in state.items():
    if not isinstance(name, str) or not isinstance(value, Tensor):
      archive.fail(
        f'contains {type(value).__name__} as {name!r:.80}, but a state dict has only '
        'named tensors; save it with torch.save(model.state_dict(), …)'
      )
  return state
