"""Strips an image file's metadata and returns its EXIF and colour profile.

Pillow parses text, comments, resolution and EXIF along with the header, and rejects the
whole image if any of them is malformed. Only the orientation and the colour profile
matter here, so the rest is removed before Pillow sees it.
"""

import re
import struct
import zlib
from typing import NamedTuple

PNG = b'\x89PNG\r\n\x1a\n'
JPEG = b'\xff\xd8\xff'

ORIENTATION = 0x0112  # The EXIF tag.
# Of an uncompressed colour profile; printer profiles have a few megabytes.
MAX_PROFILE_BYTES = 2**24
# Chunks or segments; far more than in any valid file, but still fast to parse.
MAX_PARTS = 2**17

# Fill bytes may precede a marker.
_MARKER = re.compile(rb'\xff++([^\x00])', re.DOTALL)
# Markers of segments that have a length, up to the pixels.
_SEGMENTS = {*range(0xC0, 0xD0), *range(0xDB, 0xF0), 0xFE} - {0xC8}
_APP0, _APP1, _APP2, _APP14, _APP15, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xFE
# Segments that define how colours are stored: marker -> (prefix, minimum length).
_COLOUR_SEGMENTS = {_APP0: (b'JFIF\0', 14), _APP14: (b'Adobe', 12)}


class ImageFile(NamedTuple):
  """The parts of an image file; missing ones are empty.

  Attributes:
    data: the file, without metadata if it is PNG or JPEG.
    exif: a TIFF structure, not validated.
    profile: ICC colour profile, not validated.
  """

  data: bytes
  exif: bytes = b''
  profile: bytes = b''


def split_metadata(data: bytes) -> ImageFile:
  """Splits a PNG or JPEG file into its parts; other files are returned unchanged.

  From the first truncated or malformed part on, the file stays unchanged, for the
  decoder to judge.

  Raises:
    ValueError: a PNG chunk that affects pixels has a wrong checksum, or there are more
      than MAX_PARTS chunks or segments.
  """
  if data.startswith(PNG):
    return _split_png(data)
  if data.startswith(JPEG):
    return _split_jpeg(data)
  return ImageFile(data)


def orientation(exif: object) -> int:
  """Returns the orientation in EXIF data, 1 to 8; 1 (upright) if there is none.

  Reads nothing else, so that other malformed fields do no harm.
  """
  if not isinstance(exif, bytes):
    return 1
  # Some writers include the segment's name, some even twice.
  tiff = exif.removeprefix(b'Exif\0\0').removeprefix(b'Exif\0\0')
  order = {b'II*\0': '<', b'MM\0*': '>'}.get(tiff[:4])
  if order is None:
    return 1
  try:
    (start,) = struct.unpack_from(f'{order}I', tiff, 4)
    (count,) = struct.unpack_from(f'{order}H', tiff, start)
    for offset in range(start + 2, start + 2 + 12 * count, 12):
      tag, kind, number = struct.unpack_from(f'{order}HHI', tiff, offset)
      if tag == ORIENTATION:
        # The standard demands a short; some writers use a long.
        layout = {3: 'H', 4: 'I'}.get(kind) if number == 1 else None
        (value,) = struct.unpack_from(f'{order}{layout}', tiff, offset + 8)
        return value if 1 <= value <= 8 else 1
  except struct.error:
    pass
  return 1


def _split_png(data: bytes) -> ImageFile:
  kept, exif, profile = _EditedFile(data, len(PNG)), b'', b''
  header, pixels, position = b'', False, len(PNG)
  while position + 12 <= len(data):
    length, kind = struct.unpack_from('>I4s', data, position)
    end = position + 12 + length
    if end > len(data) or not kind.isalpha() or kind == b'IEND':
      break
    body = data[position + 8 : end - 4]
    sound = zlib.crc32(body, zlib.crc32(kind)) == int.from_bytes(data[end - 4 : end])
    # Chunks whose name starts with a lower-case letter are optional for decoders.
    needed = kind[:1].isupper()
    if (needed or kind == b'tRNS') and not sound:
      raise ValueError(f'the checksum of its {kind.decode()} chunk is wrong')
    if kind == b'tRNS' and not pixels:  # Only valid before the pixels.
      kept.replace(position, end, _chunk(kind, _scaled_grey(body, header)))
    elif not needed:
      kept.replace(position, end)
    if sound and kind == b'eXIf':
      exif = exif or body
    elif sound and kind == b'iCCP':
      profile = profile or _inflated(body)
    header = header or body
    pixels = pixels or kind == b'IDAT'
    position = end
    kept.count()
  return ImageFile(kept.join(), exif, profile)


class _EditedFile:
  """A file with parts removed or replaced."""

  def __init__(self, data: bytes, start: int):
    self._data, self._pieces = data, [data[:start]]
    self._start, self._parts = start, 0

  def replace(self, start: int, end: int, other: bytes = b'') -> None:
    """Replaces a part; parts must be replaced from first to last."""
    self._pieces += [self._data[self._start : start], other]
    self._start = end

  def count(self) -> None:
    """Counts a part; raises ValueError if there are too many."""
    self._parts += 1
    if self._parts > MAX_PARTS:
      raise ValueError(f'more than {MAX_PARTS} parts before the pixels end')

  def join(self) -> bytes:
    """Returns the edited file."""
    return b''.join([*self._pieces, self._data[self._start :]])


def _chunk(kind: bytes, body: bytes) -> bytes:
  checksum = zlib.crc32(body, zlib.crc32(kind))
  return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', checksum)


def _scaled_grey(transparent: bytes, header: bytes) -> bytes:
  """Scales a transparent level from 2 or 4 bits to 8, as Pillow scales the pixels."""
  depth, colours = header[8:9], header[9:10]
  if colours != b'\0' or depth not in (b'\2', b'\4') or len(transparent) < 2:
    return transparent
  highest = 2 ** depth[0] - 1
  return bytes([0, (transparent[1] & highest) * (255 // highest)])


def _inflated(body: bytes) -> bytes:
  """Returns the profile in an iCCP chunk, b'' if it is damaged or too large."""
  _, _, packed = body.partition(b'\0')
  stream = zlib.decompressobj()
  try:
    # The first byte is the compression method; there is only one.
    profile = stream.decompress(packed[1:], MAX_PROFILE_BYTES)
  except zlib.error:
    return b''
  return profile if stream.eof else b''


def _split_jpeg(data: bytes) -> ImageFile:
  kept, exif, profile = _EditedFile(data, 2), b'', []
  position = 2
  while (found := _MARKER.match(data, position)) and found[1][0] in _SEGMENTS:
    marker, start = found[1][0], found.end()
    end = start + int.from_bytes(data[start : start + 2])
    if not start + 2 <= end <= len(data):
      break
    body = data[start + 2 : end]
    if marker == _APP1 and body.startswith(b'Exif\0\0'):
      exif = exif or body[6:]
    elif marker == _APP2 and body.startswith(b'ICC_PROFILE\0'):
      profile.append(body[12:])
    if not _affects_pixels(marker, body):
      kept.replace(position, end)
    elif start > position + 2:  # Pillow is slow at fill bytes.
      kept.replace(position, start - 2)
    position = end
    kept.count()
  return ImageFile(kept.join(), exif, _joined(profile))


def _affects_pixels(marker: int, body: bytes) -> bool:
  """Returns whether the decoder needs a segment."""
  if marker in _COLOUR_SEGMENTS:
    start, least = _COLOUR_SEGMENTS[marker]
    return body.startswith(start) and len(body) >= least
  return not (_APP0 <= marker <= _APP15 or marker == _COMMENT)


def _joined(parts: list[bytes]) -> bytes:
  """Joins the parts of a profile; each starts with its number and their count."""
  if not parts or any(len(part) < 2 or part[1] != len(parts) for part in parts):
    return b''
  return b''.join(part[2:] for part in sorted(parts))
