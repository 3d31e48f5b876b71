"""Small hostile files; their names tell what they attack."""

import gzip
import io
import json
import pathlib
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from rahf.data.images.codec import encode_png

# Bytes of zeros, compressed a thousandfold.
BOMB = 2**30
HTML = (
  '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">'
  '<svg onload="window.hacked = 3"> javascript:window.hacked=4 {{data}} ${data} '
  '[x](javascript:window.hacked=5) \u2028\u2029 &lt;b&gt; "\' onmouseover=x'
)


class Payload:
  """An object whose unpickling creates a file."""

  def __init__(self, trace: pathlib.Path):
    self.trace = str(trace)

  def __reduce__(self):
    return open, (self.trace, 'w')


def png(number: int = 0) -> bytes:
  return encode_png(np.full((8, 8, 3), number % 256, np.uint8))


def npy(array: np.ndarray, **options) -> bytes:
  stream = io.BytesIO()
  np.lib.format.write_array(stream, array, **options)
  return stream.getvalue()


def npy_header(shape: tuple[int, ...]) -> bytes:
  """Returns the header of an array without its values."""
  stream = io.BytesIO()
  header = {'descr': '<f4', 'fortran_order': False, 'shape': shape}
  np.lib.format.write_array_header_1_0(stream, header)
  return stream.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w', method) as archive:
    for name, data in members.items():
      archive.writestr(name, data)
  return stream.getvalue()


def safetensors(header: bytes, length: int | None = None, values: bytes = b'') -> bytes:
  size = len(header) if length is None else length
  return struct.pack('<Q', size) + header + values


def tensor(shape: list, start: int, end: int) -> bytes:
  return json.dumps(
    {'a': {'dtype': 'F32', 'shape': shape, 'data_offsets': [start, end]}}
  ).encode()


def text_bomb(kind: bytes) -> bytes:
  """Returns a PNG with a large compressed text."""
  data = zlib.compress(bytes(2**26), 9)
  data = b'Comment\0' + (b'\0' if kind == b'zTXt' else b'\1\0\0\0') + data
  chunk = struct.pack('>I', len(data)) + kind + data
  chunk += struct.pack('>I', zlib.crc32(kind + data))
  whole = png()
  return whole[:33] + chunk + whole[33:]


def files(trace: pathlib.Path) -> dict[str, bytes]:
  """Returns hostile contents for any file, by description.

  Args:
    trace: a file that is created if one of them is executed.
  """
  payload = Payload(trace)
  objects = np.array([payload], object)
  zeros = bytes(2**26)
  return {
    'nothing': b'',
    'zero bytes': bytes(64),
    'text': b'<!doctype html><title>404</title>',
    'no UTF-8': b'\xff\xfe\x00\xd8' * 9,
    **{f'pickle {n}': pickle.dumps(payload, n) for n in (0, 2, 4)},
    'npy of objects': npy(objects, allow_pickle=True),
    'npz of objects': zipped({'cls.npy': npy(objects, allow_pickle=True)}),
    'npz that says 2^60': zipped({'cls.npy': npy_header((2**30, 2**30))}),
    'npz of pickles': zipped({'cls.npy': pickle.dumps(payload, 2)}),
    'npz bomb': zipped({'cls.npy': npy(np.zeros(2**26, 'u1'))}, zipfile.ZIP_DEFLATED),
    'torch': zipped({'a/data.pkl': pickle.dumps(payload, 2), 'a/version': b'3'}),
    'torch bomb': zipped(
      {'a/data.pkl': zeros, 'a/byteorder': zeros}, zipfile.ZIP_DEFLATED
    ),
    'zip that leads outside': zipped({'../../trace': b'x', '/tmp/trace': b'x'}),
    'zip in a zip': zipped({'a.zip': zipped({'b': b''})}),
    'safetensors of 2^60': safetensors(b'{}', 2**60),
    'safetensors of 2^63': safetensors(b'{}', 2**63),
    'safetensors that says 2^60': safetensors(tensor([2**30, 2**30], 0, 2**62)),
    'safetensors that overlaps': safetensors(tensor([1], -4, 0), values=bytes(4)),
    'safetensors of levels': safetensors(b'[' * 100_000),
    'TFRecord of 2^60': struct.pack('<QI', 2**60, 0) + bytes(20),
    'JSON of levels': b'[' * 10**6,
    'JSON of objects': b'{"a":' * 10**6,
    'JSON that is NaN': b'{"a": NaN, "a": Infinity}',
    'JSON of a long number': b'9' * 10**5,
    'JSON that is a list': b'[{}]',
    'JSON that is null': b'null',
    'gzip bomb': gzip.compress(zeros),
    'tar': tar({'../../trace': b'x'}),
    'parquet of 2^31': b'PAR1' + bytes(64) + struct.pack('<I', 2**31 - 1) + b'PAR1',
    'PNG': png(),
    'zTXt bomb': text_bomb(b'zTXt'),
    'iTXt bomb': text_bomb(b'iTXt'),
  }


def tar(members: dict[str, bytes], links: dict[str, tuple[bytes, str]] | None = None):
  """Returns an archive with files, and with links given as name: (type, target)."""
  stream = io.BytesIO()
  with tarfile.open(fileobj=stream, mode='w') as archive:
    for name, data in members.items():
      info = tarfile.TarInfo(name)
      info.size = len(data)
      archive.addfile(info, io.BytesIO(data))
    for name, (kind, target) in (links or {}).items():
      info = tarfile.TarInfo(name)
      info.type, info.linkname = kind, target
      archive.addfile(info)
  return stream.getvalue()


LINKS = {
  'symbolic.png': (tarfile.SYMTYPE, '/etc/passwd'),
  'hard.png': (tarfile.LNKTYPE, '../../../etc/passwd'),
  'device.png': (tarfile.CHRTYPE, ''),
  'block.png': (tarfile.BLKTYPE, ''),
  'pipe.png': (tarfile.FIFOTYPE, ''),
  'folder.png': (tarfile.DIRTYPE, ''),
}
ODD_LEAVES = (
  *(None, True, -1, 0, 2, 1.5, 1e308, 10**30, 2**31, '', 'x', HTML, 'multi_head'),
  *([], {}, [[]], [1] * 9, {'a': 1}, 'a' * 10_000, '\0', '../../x'),
)


def leaves(value: Any, path: tuple = ()) -> Iterator[tuple]:
  """Yields the path of every value in JSON, including objects and lists."""
  if path:
    yield path
  items = value.items() if isinstance(value, dict) else ()
  items = enumerate(value) if isinstance(value, list) else items
  for key, inner in items:
    yield from leaves(inner, (*path, key))


def changed(whole: Any, path: tuple, *value: Any) -> Any:
  """Returns a copy with the value at a path replaced or removed."""
  copy = json.loads(json.dumps(whole))
  inner = copy
  for key in path[:-1]:
    inner = inner[key]
  if value:
    inner[path[-1]] = value[0]
  else:
    del inner[path[-1]]
  return copy
