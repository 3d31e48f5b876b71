"""Images in every mode and format, and damaged ones."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image


def encode(image: Image.Image, kind: str, **options) -> bytes:
  """Returns the bytes of an image file."""
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def originals() -> dict[str, bytes]:
  """Returns valid files by description."""
  rng = np.random.default_rng(0)
  small = Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8))
  picture = small.resize((45, 30), Image.Resampling.BICUBIC)
  files = {
    f'PNG {mode}': encode(picture.convert(mode), 'PNG')
    for mode in ('RGB', 'RGBA', 'L', 'LA', 'P', '1')
  }
  grey = np.asarray(picture.convert('L')).astype(np.uint16) * 257
  files['PNG 16 bits'] = encode(Image.fromarray(grey), 'PNG')
  files['PNG transparent colour'] = encode(
    picture.convert('P'), 'PNG', transparency=3, optimize=False
  )
  for mode in ('RGB', 'L', 'CMYK'):
    files[f'JPEG {mode}'] = encode(picture.convert(mode), 'JPEG')
  files['JPEG progressive'] = encode(picture, 'JPEG', progressive=True)
  for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    files[f'JPEG orientation {orientation}'] = encode(picture, 'JPEG', exif=exif)
  files['WEBP'] = encode(picture, 'WEBP')
  files['WEBP lossless'] = encode(picture.convert('RGBA'), 'WEBP', lossless=True)
  frames = [picture, picture.rotate(180)]
  animated = dict(save_all=True, append_images=frames[1:])
  files['WEBP animated'] = encode(picture, 'WEBP', **animated)
  files['PNG animated'] = encode(picture, 'PNG', **animated)
  for size in ((1, 1), (1, 8192), (8192, 1)):
    name = f'PNG {size[0]}x{size[1]}'
    files[name] = encode(Image.new('RGB', size, 'teal'), 'PNG')
  return files


def refused() -> dict[str, bytes]:
  """Returns files that must not be decoded, by description."""
  picture = Image.new('RGB', (16, 16), 'teal')
  files = {
    kind: encode(picture, kind) for kind in ('GIF', 'BMP', 'TIFF', 'ICO', 'PPM', 'TGA')
  }
  files |= {
    'nothing': b'',
    'text': b'<!doctype html><title>404</title>',
    'SVG': b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    'EPS': b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n',
    'pickle': b'\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x94.',
    'long line': encode(Image.new('1', (1, 20_000)), 'PNG'),
    # 400 million pixels in about 50 kB.
    'bomb': encode(Image.new('1', (20_000, 20_000)), 'PNG'),
    'wide bomb': encode(Image.new('L', (8_000, 8_000)), 'PNG'),
  }
  png = encode(picture, 'PNG')
  for name, size in {
    'says 2^31 - 1 pixels': (2**31 - 1, 1),
    'says no width': (0, 16),
  }.items():
    files[name] = with_size(png, *size)
  return files


def with_size(png: bytes, width: int, height: int) -> bytes:
  """Returns a PNG whose header has a wrong size but a correct checksum."""
  header = png[12:16] + struct.pack('>II', width, height) + png[24:29]
  return png[:12] + header + struct.pack('>I', zlib.crc32(header)) + png[33:]


def mutated(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
  """Yields damaged files, each with the kind of damage."""
  rng = np.random.default_rng(seed)
  files = originals()
  names = sorted(files)
  ways = (_cut, _flip, _splice, _repeat, _zero, _resize)
  for number in range(count):
    name, way = names[rng.integers(len(names))], ways[number % len(ways)]
    other = files[names[rng.integers(len(names))]]
    yield f'{number}: {name}, {way.__name__[1:]}', way(rng, files[name], other)


def _cut(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
  return data[: rng.integers(len(data))]


def _flip(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
  """Flips bits, most of them in the header."""
  spoilt = np.frombuffer(data, np.uint8).copy()
  limit = len(spoilt) if rng.random() < 0.5 else min(64, len(spoilt))
  places = rng.integers(limit, size=rng.integers(1, 6))
  spoilt[places] ^= np.uint8(1) << rng.integers(8, size=len(places)).astype(np.uint8)
  return spoilt.tobytes()


def _splice(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
  return data[: rng.integers(len(data))] + other[rng.integers(len(other)) :]


def _repeat(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
  start, end = sorted(rng.integers(len(data), size=2))
  return data[:end] + data[start:]


def _zero(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
  start, end = sorted(rng.integers(len(data), size=2))
  return data[:start] + bytes(end - start) + data[end:]


def _resize(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
  """Changes the size in the header if it is a PNG."""
  if not data.startswith(b'\x89PNG') or len(data) < 40:
    return _flip(rng, data, other)
  return with_size(data, *(int(2 ** rng.uniform(0, 31)) for _ in range(2)))
