"""Separates the metadata of an image file from what its pixels need.

Pillow reads text, comments, resolutions and EXIF along with the header, and refuses a
whole picture when something in them is odd. Only the orientation and the colour profile
matter here, so that the rest never reaches it.
"""

import re
import struct
import zlib
from typing import NamedTuple

PNG = b'\x89PNG\r\n\x1a\n'
JPEG = b'\xff\xd8\xff'

ORIENTATION = 0x0112  # The EXIF tag.
# Of a colour profile, uncompressed; those of printers have a few megabytes.
MOST_PROFILE = 2**24

# Fill bytes may precede a marker.
_MARKER = re.compile(rb'\xff++([^\x00])', re.DOTALL)
# Markers of segments that have a length, up to the pixels.
_SEGMENTS = {*range(0xC0, 0xD0), *range(0xDB, 0xF0), 0xFE} - {0xC8}
_APP0, _APP1, _APP2, _APP14, _APP15, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xFE
# They say how colours are stored; by marker, how they begin and their least length.
_OF_COLOURS = {_APP0: (b'JFIF\0', 14), _APP14: (b'Adobe', 12)}


class ImageFile(NamedTuple):
  """A file in parts; those that it lacks are empty.

  Attributes:
    data: the file, of PNG and JPEG without metadata.
    exif: a TIFF structure, not checked.
    profile: of the colours (ICC), not checked.
  """

  data: bytes
  exif: bytes = b''
  profile: bytes = b''


def separate(data: bytes) -> ImageFile:
  """Takes a PNG or JPEG file apart; any other is returned as it is.

  Where the file is cut or odd, its rest stays as it is, for the decoder to judge.

  Raises:
    ValueError: the checksum of a PNG chunk that the pixels need is wrong.
  """
  if data.startswith(PNG):
    return _separate_png(data)
  if data.startswith(JPEG):
    return _separate_jpeg(data)
  return ImageFile(data)


def orientation(exif: object) -> int:
  """Returns the orientation in EXIF data, 1 to 8; 1, upright, if there is none.

  Nothing else is read, so that nothing else can be wrong.
  """
  if not isinstance(exif, bytes):
    return 1
  tiff = exif.removeprefix(b'Exif\0\0')
  order = {b'II*\0': '<', b'MM\0*': '>'}.get(tiff[:4])
  if order is None:
    return 1
  try:
    (start,) = struct.unpack_from(f'{order}I', tiff, 4)
    (count,) = struct.unpack_from(f'{order}H', tiff, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
      tag, kind, number = struct.unpack_from(f'{order}HHI', tiff, place)
      if tag == ORIENTATION:
        # A short, as the standard has it, or a long.
        layout = {3: 'H', 4: 'I'}.get(kind) if number == 1 else None
        (value,) = struct.unpack_from(f'{order}{layout}', tiff, place + 8)
        return value if 1 <= value <= 8 else 1
  except struct.error:
    pass
  return 1


def _separate_png(data: bytes) -> ImageFile:
  kept, exif, profile = [PNG], b'', b''
  header, pixels, position = b'', False, len(PNG)
  while position + 12 <= len(data):
    length, kind = struct.unpack_from('>I4s', data, position)
    end = position + 12 + length
    if end > len(data) or not kind.isalpha() or kind == b'IEND':
      break
    body = data[position + 8 : end - 4]
    sound = zlib.crc32(body, zlib.crc32(kind)) == int.from_bytes(data[end - 4 : end])
    # A lower case letter marks chunks that decoders may pass over.
    if kind[:1].isupper() or kind == b'tRNS':
      if not sound:
        raise ValueError(f'the checksum of its {kind.decode()} chunk is wrong')
      if kind == b'tRNS':
        # After the pixels it would come too late.
        kept += [] if pixels else [_chunk(kind, _scaled_grey(body, header))]
      else:
        kept.append(data[position:end])
    elif sound and kind == b'eXIf':
      exif = exif or body
    elif sound and kind == b'iCCP':
      profile = profile or _inflated(body)
    header = header or body
    pixels = pixels or kind == b'IDAT'
    position = end
  kept.append(data[position:])
  return ImageFile(b''.join(kept), exif, profile)


def _chunk(kind: bytes, body: bytes) -> bytes:
  checksum = zlib.crc32(body, zlib.crc32(kind))
  return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', checksum)


def _scaled_grey(transparent: bytes, header: bytes) -> bytes:
  """Scales the transparent level of 2 or 4 bits to 8, as Pillow does the pixels."""
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
    # After the method, of which there is one.
    profile = stream.decompress(packed[1:], MOST_PROFILE)
  except zlib.error:
    return b''
  return profile if stream.eof else b''


def _separate_jpeg(data: bytes) -> ImageFile:
  kept, exif, profile = [data[:2]], b'', []
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
    if _shows_pixels(marker, body):
      kept += [b'\xff', data[found.end() - 1 : end]]
    position = end
  kept.append(data[position:])
  return ImageFile(b''.join(kept), exif, _joined(profile))


def _shows_pixels(marker: int, body: bytes) -> bool:
  """Returns whether the decoder needs a segment."""
  if marker in _OF_COLOURS:
    start, least = _OF_COLOURS[marker]
    return body.startswith(start) and len(body) >= least
  return not (_APP0 <= marker <= _APP15 or marker == _COMMENT)


def _joined(parts: list[bytes]) -> bytes:
  """Joins the parts of a profile, each after its number and how many there are."""
  if not parts or any(len(part) < 2 or part[1] != len(parts) for part in parts):
    return b''
  return b''.join(part[2:] for part in sorted(parts))
