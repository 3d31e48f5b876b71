"""Malformed metadata does no harm, but damaged pixels are reported."""

import itertools
import struct
import zlib

import image_files
import numpy as np
import pytest
from image_files import chunk, encode, tiff
from PIL import Image

from rahf.data.images import codec


def _halves() -> Image.Image:
  """32 x 16, left half red, right half blue."""
  image = Image.new('RGB', (32, 16), 'red')
  image.paste('blue', (16, 0, 32, 16))
  return image


# Other tags, as malformed by EXIF writers or damage.
MAKE = (0x010F, 2, 2**31, b'\xff' * 4)
RATIONAL = (0x011A, 5, 1, struct.pack('<I', 62))
RESOLUTION = [(0x0128, 3, 1, b'\2\0\0\0'), RATIONAL]
SIX = image_files.turned(6)


@pytest.mark.parametrize(
  ('exif', 'value'),
  [
    (tiff(SIX), 6),
    (tiff(image_files.turned(6, '>'), order='>'), 6),
    (tiff(image_files.turned(6, kind=4)), 6),
    # Malformed tags before and after it, and a rational of -1/0.
    (tiff(MAKE, SIX, *RESOLUTION, rest=struct.pack('<iI', -1, 0)), 6),
    (tiff(MAKE, (0x0111, 99, 1, b'abcd'), SIX, RATIONAL), 6),
    (tiff((0x010F, 13, 1, b'\0' * 4), SIX, (0x9C9B, 7, 2**32 - 1, b'abcd')), 6),
    # Truncated after it.
    (tiff(SIX)[:22], 6),
    # None, or not one.
    (tiff(SIX)[:17], 1),
    (tiff(MAKE), 1),
    (tiff(image_files.turned(0)), 1),
    (tiff(image_files.turned(9)), 1),
    (tiff(image_files.turned(2**16, kind=4)), 1),
    (tiff(image_files.turned(6, kind=1)), 1),
    (tiff(image_files.turned(6, number=2)), 1),
    (tiff((0x0112, 2, 2, b'6\0\0\0')), 1),
    (b'II*\0' + b'\xff' * 4, 1),
    (b'II*\0', 1),
    (b'no', 1),
  ],
  ids=itertools.count(),
)
@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP'])
def test_only_the_orientation_of_exif_matters(kind, exif, value):
  plain = encode(_halves(), kind, lossless=True)
  data = encode(_halves(), kind, lossless=True, exif=b'Exif\0\0' + exif)
  expected = codec.decode_image(plain)
  if value == 6:  # Turned to the right.
    expected = np.rot90(expected, -1)
  np.testing.assert_array_equal(codec.decode_image(data), expected)


# Chunks written by tools, valid and damaged: (valid, chunk of a PNG).
PASSED_OVER = {
  'compressed text': chunk(b'zTXt', b'workflow\0\0' + zlib.compress(bytes(2**21))),
  'international text': chunk(
    b'iTXt', b'workflow\0\1\0\0\0' + zlib.compress(bytes(2**21))
  ),
  'much text': chunk(b'tEXt', b'a\0' + bytes(2**21)) * 40,
  'text with a wrong checksum': chunk(b'tEXt', b'a\0b', error=1),
  'text that names a property': chunk(b'tEXt', b'transparency\0x'),
  'text that says interlaced': chunk(b'tEXt', b'interlace\0x'),
  'text that is not packed': chunk(b'zTXt', b'a\0\7x'),
  'no text': chunk(b'zTXt', b''),
  'short resolution': chunk(b'pHYs', b'\0'),
  'short gamma': chunk(b'gAMA', b''),
  'short primaries': chunk(b'cHRM', b'\0' * 7),
  'frames': chunk(b'acTL', b'\0' * 3),
  'a private one with a wrong checksum': chunk(b'teSt', b'', error=1),
}


@pytest.mark.parametrize('name', PASSED_OVER)
def test_chunks_that_do_not_affect_pixels_are_ignored(name):
  pixels = np.asarray(_halves())
  before = image_files.png(pixels, 8, image_files.COLOURS, PASSED_OVER[name])
  after = image_files.png(pixels, 8, image_files.COLOURS, after=PASSED_OVER[name])
  for data in (before, after, before + b'more'):
    np.testing.assert_array_equal(codec.decode_image(data), pixels)
  grey = image_files.png(pixels[..., 0], 8, image_files.GREY, PASSED_OVER[name])
  np.testing.assert_allclose(codec.decode_map(grey) * 255, pixels[..., 0], rtol=1e-6)


@pytest.mark.parametrize('decode', [codec.decode_image, codec.decode_map])
@pytest.mark.parametrize('kind', [b'IHDR', b'IDAT', b'PLTE', b'tRNS'])
def test_a_wrong_checksum_of_pixels_is_an_error(decode, kind):
  colours = [chunk(b'PLTE', bytes(6)), chunk(b'tRNS', b'\0')]
  data = image_files.png([[0, 1]], 1, image_files.PALETTE, *colours)
  assert decode(data).shape[:2] == (1, 2)
  place = data.index(kind)
  (length,) = struct.unpack_from('>I', data, place - 4)
  spoilt = bytearray(data)
  spoilt[place + 4 + length] ^= 1
  match = f'^damaged: the checksum of its {kind.decode()} chunk is wrong'
  with pytest.raises(codec.ImageError, match=match):
    decode(bytes(spoilt))


def segment(marker: int, body: bytes) -> bytes:
  return bytes([0xFF, marker]) + struct.pack('>H', len(body) + 2) + body


# The same for JPEG.
SEGMENTS = {
  'a comment': segment(0xFE, b'x' * 60_000),
  'Photoshop': segment(0xED, b'Photoshop 3.0\08BIM\3\xed\0\0\0\0\0\x10x'),
  'XMP': segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta'),
  'short JFIF': segment(0xE0, b'JFIF\0'),
  'short Adobe': segment(0xEE, b'Adobe'),
  'short profile': segment(0xE2, b'ICC_PROFILE\0'),
  'further pictures': segment(0xE2, b'MPF\0' + tiff((0xB001, 4, 1, b'\2\0\0\0'))),
  'fill bytes': b'\xff' * 9 + segment(0xE1, b'Exif\0\0' + tiff(MAKE, *RESOLUTION)),
}


def test_too_many_parts_are_refused():
  """They would take long to parse."""
  plain = encode(_halves(), 'JPEG')
  for data in (
    plain[:2] + b'\xff\xfe\0\2' * 2**18 + plain[2:],
    image_files.png([[0]], 8, image_files.GREY, chunk(b'tEXt', b'') * 2**18),
  ):
    with pytest.raises(codec.ImageError, match='damaged: more than 131072 parts'):
      codec.decode_image(data)


@pytest.mark.parametrize('name', SEGMENTS)
def test_segments_that_do_not_affect_pixels_are_ignored(name):
  whole = encode(_halves(), 'JPEG')
  # After the segment that defines how colours are stored.
  for place in (2, 2 + 18):
    data = whole[:place] + SEGMENTS[name] + whole[place:]
    np.testing.assert_array_equal(codec.decode_image(data), codec.decode_image(whole))
    assert codec.open_image(data).format == 'JPEG'
