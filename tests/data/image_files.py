"""Handmade image files: PNG of any depth and chunks, EXIF, and colour profiles."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

GREY, COLOURS, PALETTE, GREY_ALPHA = 0, 2, 3, 4


def encode(image: Image.Image, kind: str = 'PNG', **options) -> bytes:
  """Returns the bytes of a file written by Pillow."""
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def chunk(kind: bytes, body: bytes, error: int = 0) -> bytes:
  """Returns a PNG chunk; `error` is added to its checksum."""
  checksum = zlib.crc32(body, zlib.crc32(kind)) + error & 0xFFFFFFFF
  return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', checksum)


def png(samples, depth: int, kind: int, *chunks: bytes, after: bytes = b'') -> bytes:
  """Returns a PNG of samples [H, W] or [H, W, C], with chunks before its pixels."""
  samples = np.asarray(samples)
  height, width = samples.shape[:2]
  rows = samples.reshape(height, -1)
  if depth == 16:
    lines = rows.astype('>u2').view(np.uint8).reshape(height, -1)
  else:
    bits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
    lines = np.packbits(bits.reshape(height, -1), axis=-1)
  pixels = zlib.compress(np.pad(lines, ((0, 0), (1, 0))).tobytes())
  header = struct.pack('>IIBBBBB', width, height, depth, kind, 0, 0, 0)
  return b''.join(
    [
      b'\x89PNG\r\n\x1a\n',
      chunk(b'IHDR', header),
      *chunks,
      chunk(b'IDAT', pixels),
      after,
      chunk(b'IEND', b''),
    ]
  )


def tiff(*entries: tuple[int, int, int, bytes], order: str = '<', rest=b'') -> bytes:
  """Returns EXIF data: entries of tag, type, count and 4 bytes of value or offset."""
  head = b'II*\0' if order == '<' else b'MM\0*'
  packed = [struct.pack(f'{order}HHI', *entry[:3]) + entry[3] for entry in entries]
  count = struct.pack(f'{order}H', len(entries))
  first = struct.pack(f'{order}I', 8)
  return head + first + count + b''.join(packed) + bytes(4) + rest


def turned(value: int, order: str = '<', kind: int = 3, number: int = 1) -> tuple:
  """Returns the entry of an orientation."""
  layout = {1: 'B3x', 3: 'H2x', 4: 'I'}[kind]
  return 0x0112, kind, number, struct.pack(order + layout, value)


# The primaries of sRGB, adapted to D50 (ICC).
SRGB = {
  'r': (0.43607, 0.22249, 0.01392),
  'g': (0.38515, 0.71687, 0.09708),
  'b': (0.14307, 0.06061, 0.71410),
}


def to_linear(values):
  """Converts sRGB values to linear light, both in [0, 1]."""
  values = np.asarray(values, float)
  return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def from_linear(light):
  """Inverse of `to_linear`."""
  light = np.asarray(light, float)
  return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def curve(light) -> bytes:
  """Returns a tone curve tag: linear light for values from 0 to 1, both in [0, 1]."""
  values = np.round(np.asarray(light) * 65535).astype('>u2')
  return b'curv' + struct.pack('>II', 0, len(values)) + values.tobytes()


STEPS = np.linspace(0, 1, 1024)
SRGB_CURVE = curve(to_linear(STEPS))


def rgb_profile(primaries=SRGB, tone: bytes = SRGB_CURVE) -> bytes:
  """Returns a profile of a display."""
  tags = {f'{name}TRC'.encode(): tone for name in 'rgb'}
  for name, values in primaries.items():
    tags[f'{name}XYZ'.encode()] = _xyz(values)
  return _profile(b'mntr', b'RGB ', b'XYZ ', tags)


def grey_profile(tone: bytes) -> bytes:
  """Returns a profile of a grey display."""
  return _profile(b'mntr', b'GRAY', b'XYZ ', {b'kTRC': tone})


def cmyk_profile() -> bytes:
  """Returns a profile of a printer with only black ink: L* falls as K grows."""
  ink = np.arange(16) & 1  # K is the last of four axes.
  lab = np.stack([255 * (1 - ink), 0 * ink + 128, 0 * ink + 128], -1).astype(np.uint8)
  identity = np.arange(256, dtype=np.uint8).tobytes()
  table = b'mft1' + bytes(4) + bytes([4, 3, 2, 0])
  table += struct.pack('>9i', *(65536 * np.eye(3, dtype=int).ravel()))
  table += identity * 4 + lab.tobytes() + identity * 3
  return _profile(b'prtr', b'CMYK', b'Lab ', {b'A2B0': table})


def _xyz(values) -> bytes:
  return b'XYZ ' + bytes(4) + struct.pack('>3i', *(round(65536 * v) for v in values))


def _profile(kind: bytes, space: bytes, middle: bytes, tags: dict) -> bytes:
  white = (0.9642, 1.0, 0.8249)
  tags = {b'wtpt': _xyz(white), **tags}
  place, index, body = 132 + 12 * len(tags), b'', b''
  for name, tag in tags.items():
    index += name + struct.pack('>II', place + len(body), len(tag))
    body += tag + bytes(-len(tag) % 4)
  head = struct.pack('>I', place + len(body)) + bytes(4) + b'\x02\x10\0\0'
  head += kind + space + middle + struct.pack('>6H', 2000, 1, 1, 0, 0, 0) + b'acsp'
  head += bytes(28) + _xyz(white)[8:] + bytes(48)
  assert len(head) == 128
  return head + struct.pack('>I', len(tags)) + index + body


def icc_chunk(profile: bytes) -> bytes:
  """Returns a PNG chunk with a profile."""
  return chunk(b'iCCP', b'of a test\0\0' + zlib.compress(profile))
