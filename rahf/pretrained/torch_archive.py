"""Reads PyTorch's zip archives (`torch.save`), without PyTorch and without risk.

Such an archive is a pickle, `data.pkl`, that says what the tensors are, and a file for
each storage. A pickle may call any function. Here it can only name the few that
tensors need, and gets stand-ins that do nothing but take notes. Only dense tensors of
the dtypes in STORAGES are read; all else that PyTorch can save is refused by name.
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
# Under these keys, a larger checkpoint may hold the state dict.
WRAPPERS = ('model', 'state_dict')
DENSE = (
  'only dense tensors of bfloat16, float16, float32, float64 and int64 can be read; in '
  'PyTorch, convert the tensors to such ones and save the state dict once more'
)
RESCUE = (
  'where its origin is trusted, load it in PyTorch and write its state dict alone '
  'with torch.save'
)

# Lists among the attributes of TorchScript modules, none of which are weights.
SCRIPT_LISTS = ('build_intlist', 'build_doublelist', 'build_boollist')
SCRIPT_DEPTH = 50  # Levels of modules.

PIECE = 1 << 20  # Bytes that are read at a time where nothing is kept.


class ArchiveError(InputError):
  """A file is not what it should be, or not safe; says which file, and why."""


class _Note:
  """What a pickle cannot change once it is made (its BUILD instruction would)."""

  def __setstate__(self, state: Any) -> None:
    raise TypeError(f'{type(self).__name__} has no state')


@dataclasses.dataclass(frozen=True)
class Storage(_Note):
  """A file of an archive that holds the values of one or more tensors."""

  archive: 'Archive'
  key: str
  dtype: np.dtype
  size: int


@dataclasses.dataclass(frozen=True)
class Tensor(_Note):
  """A tensor of an archive, not yet read.

  Attributes:
    storage: where its values lie; tensors that share memory share it.
    offset: of its first value in the storage, in values.
    shape: as PyTorch has it.
    strides: in values.
    negative: whether the tensor's values are those of the storage with the opposite
      sign, as in the imaginary part of a complex conjugate (`torch.Tensor.is_neg`).
  """

  storage: Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]
  negative: bool = False

  @property
  def extent(self) -> int:
    """How many values of the storage lie between its first and last, with these."""
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
  """An open file; tensors keep it open, and it is closed with the last of them."""

  def __init__(self, path: epath.PathLike):
    """Opens a file, local or in a bucket.

    Raises:
      ArchiveError: it is not such an archive, or damaged.
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
        self.fail(f'is a pickle, as PyTorch before 1.6 wrote it; not read: {RESCUE}')
      self.fail(f'is not a PyTorch archive, or cut off ({error}); copy it again')
    pickles = [n for n in self._zip.namelist() if n.split('/')[1:] == ['data.pkl']]
    if len(pickles) != 1:
      self.fail('is a zip archive, but not of PyTorch: it has no data.pkl')
    self._verified: set[str] = set()
    self._root = pickles[0].removesuffix('data.pkl')
    # Archives of PyTorch before 2.1 do not say; they are from such machines too.
    order = 'little'
    if f'{self._root}byteorder' in self._zip.namelist():
      order = self._bytes('byteorder').decode('ascii', 'replace')
    if order not in ('little', 'big'):
      self.fail(f'has values in {order!r} byte order, not little or big')
    self._order = {'little': '<', 'big': '>'}[order]

  def fail(self, problem: str) -> NoReturn:
    raise ArchiveError(f'{self.path} {problem}') from None

  def load(self) -> Any:
    """Returns what `data.pkl` describes, with `Tensor` for tensors."""
    try:
      with self._open('data.pkl') as stream:
        return _Unpickler(self, stream).load()
    except ArchiveError:
      raise
    except Exception as error:  # There is none that a broken pickle could not raise.
      self.fail(f'has a data.pkl that is damaged: {type(error).__name__}: {error}')

  def check(self, tensor: Tensor) -> None:
    """Raises ArchiveError if a tensor does not lie within its file."""
    storage = tensor.storage
    try:
      size = self._zip.getinfo(f'{self._root}data/{storage.key}').file_size
    except KeyError:
      self.fail(f'lacks data/{storage.key}')
    if size != storage.size * storage.dtype.itemsize:
      self.fail(
        f'has {size} bytes in data/{storage.key}, but should have {storage.size} '
        f'values of {storage.dtype} there'
      )
    if tensor.offset + tensor.extent > storage.size:
      self.fail(f'has a tensor that ends after data/{storage.key}')

  def read(self, storage: Storage, offset: int, count: int) -> np.ndarray:
    """Returns `count` values of a storage, as one axis."""
    width, name = storage.dtype.itemsize, f'data/{storage.key}'
    if count < storage.size and name not in self._verified:
      # zipfile compares the checksum only of what is read from start to end.
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
    # Compressed, a small file could fill the memory.
    if info.compress_type != zipfile.ZIP_STORED:
      self.fail(f'has {name} compressed, which torch.save never does; save it again')
    return self._zip.open(info)

  def _verify(self, name: str) -> None:
    """Reads a file in pieces, which compares its checksum."""
    with self._damage_is_an_error(name), self._open(name) as stream:
      while stream.read(PIECE):
        pass

  def _bytes(self, name: str, start: int = 0, count: int = -1) -> bytes:
    with self._damage_is_an_error(name), self._open(name) as stream:
      stream.seek(start)
      data = stream.read(count)
    if count >= 0 and len(data) != count:
      self.fail(f'is cut off in {name}; copy it again')
    return data

  @contextlib.contextmanager
  def _damage_is_an_error(self, name: str) -> Iterator[None]:
    try:
      yield
    except (EOFError, OSError, zipfile.BadZipFile) as error:
      self.fail(
        f'is damaged in {name}: {error}; copy it again, or save it again if that was '
        'done without checksums (torch.serialization.set_crc32_options)'
      )


class _Dict(dict):
  """Stands for OrderedDict; what PyTorch attaches to it (`_metadata`) is dropped."""

  def __setstate__(self, state: Any) -> None:
    pass


@dataclasses.dataclass(frozen=True)
class _StorageType(_Note):
  dtype: np.dtype


def _no_list(_: Any) -> None:
  """Stands for a list of numbers."""


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


class _Unpickler(pickle.Unpickler):
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
      return _StorageType(jnp.dtype(STORAGES[name]))
    if module == '__torch__' or module.startswith('__torch__.'):
      return _ScriptModule
    if module == 'torch.jit._pickle' and name in SCRIPT_LISTS:
      return _no_list
    if (module, name[-7:]) == ('torch', 'Storage') or module.startswith('torch._'):
      self._archive.fail(f'refers to {module}.{name}, which was not run: {DENSE}')
    self._archive.fail(
      f'refers to {module}.{name}, which weights do not need; it could do harm, and '
      f'was not run: {RESCUE}'
    )

  def persistent_load(self, pid: Any) -> Storage:
    match pid:
      case ('storage', _StorageType(dtype), str(key), str(), int(size)) if size >= 0:
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
      self._archive.fail('has a tensor that is not described as PyTorch does')
    # Operations that PyTorch puts off until the values are used.
    bits = bits or {}
    if not isinstance(bits, dict) or any(bits[key] for key in bits if key != 'neg'):
      self._archive.fail(f'has a tensor with the properties {bits!r:.80}: {DENSE}')
    tensor = Tensor(storage, offset, shape, strides, bool(bits.get('neg')))
    self._archive.check(tensor)
    return tensor

  def _parameter(self, tensor: Any, *_: Any) -> Any:
    return tensor


def open_torch(path: epath.PathLike) -> dict[str, Tensor]:
  """Returns the tensors of a state dict by name, unread.

  The state dict may be all that was saved, or lie in a dict as 'model' or
  'state_dict'. Of a TorchScript file, such as OpenAI's CLIP, only tensors are read.

  Args:
    path: a file that `torch.save` of PyTorch 1.6 or newer wrote, or `torch.jit.save`;
      local or gs://.

  Raises:
    ArchiveError: it is something else, damaged, or its pickle would do more than
      describe tensors.
  """
  archive = Archive(path)
  state = archive.load()
  if isinstance(state, _ScriptModule):
    try:
      return dict(state.tensors())
    except ValueError as error:
      archive.fail(f'is damaged: {error}')
  if isinstance(state, dict):
    inner = [state[k] for k in WRAPPERS if isinstance(state.get(k), dict)]
    state = inner[0] if len(inner) == 1 else state
  if not isinstance(state, dict):
    archive.fail(
      f'holds {type(state).__name__}, not a state dict; save it alone, with '
      'torch.save(model.state_dict(), …)'
    )
  for name, value in state.items():
    if not isinstance(name, str) or not isinstance(value, Tensor):
      archive.fail(
        f'holds {type(value).__name__} as {name!r:.80}, but a state dict is tensors by '
        'name; save it alone, with torch.save(model.state_dict(), …)'
      )
  return state
