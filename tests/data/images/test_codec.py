"""Images are decoded upright, over white, and within size limits."""

import io
import struct
import zlib

import image_files
import numpy as np
import pytest
from image_files import chunk
from PIL import Image, ImageOps

from rahf.data.images import codec

RED, BLUE = (255, 0, 0), (0, 0, 255)


def _encode(image: Image.Image, format: str = 'PNG', **options) -> bytes:
  buffer = io.BytesIO()
  image.save(buffer, format, **options)
  return buffer.getvalue()


def _halves() -> Image.Image:
  """32 x 16, left half red, right half blue."""
  image = Image.new('RGB', (32, 16), RED)
  image.paste(BLUE, (16, 0, 32, 16))
  return image


@pytest.mark.parametrize('format', ['PNG', 'JPEG', 'WEBP'])
def test_each_format_keeps_orientation_and_colour(format):
  pixels = codec.decode_image(_encode(_halves(), format, quality=100))
  assert pixels.shape == (16, 32, 3)
  assert pixels.dtype == np.uint8
  np.testing.assert_allclose(pixels[8, 4], RED, atol=4)
  np.testing.assert_allclose(pixels[8, 28], BLUE, atol=4)


# The side to which the EXIF standard moves the stored left edge (red).
@pytest.mark.parametrize(
  ('orientation', 'red'),
  [(1, (8, 2)), (3, (8, 29)), (6, (2, 8)), (8, (29, 8))],
)
def test_exif_rotation_is_applied(orientation, red):
  exif = Image.Exif()
  exif[0x0112] = orientation
  pixels = codec.decode_image(_encode(_halves(), 'JPEG', quality=100, exif=exif))
  assert pixels.shape == ((16, 32, 3) if orientation in (1, 3) else (32, 16, 3))
  np.testing.assert_allclose(pixels[red], RED, atol=4)


@pytest.mark.parametrize('mode', ['RGBA', 'LA'])
def test_transparency_is_composited_over_white(mode):
  image = Image.new('RGBA', (4, 4), (0, 0, 0, 0))
  image.putpixel((0, 0), (0, 0, 0, 255))
  image.putpixel((1, 0), (0, 0, 0, 102))
  pixels = codec.decode_image(_encode(image.convert(mode)))
  np.testing.assert_array_equal(pixels[0, :3, 0], [0, 153, 255])


def test_palette_with_transparent_entry_is_composited_over_white():
  image = Image.new('P', (2, 1))
  image.putpalette([255, 0, 0, 0, 0, 255])
  image.putpixel((1, 0), 1)
  pixels = codec.decode_image(_encode(image, transparency=0))
  np.testing.assert_array_equal(pixels[0], [(255, 255, 255), BLUE])


def _png_header(width: int, height: int) -> bytes:
  """A PNG whose header claims a size, without pixels."""
  header = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  checksum = struct.pack('>I', zlib.crc32(header))
  return b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + header + checksum


@pytest.mark.parametrize('size', [(30_000, 20_000), (30_000, 1), (8192, 4097)])
def test_too_large_is_refused_from_the_header(size):
  data = _png_header(*size) + struct.pack('>I', 0) + b'IDAT\x35\xaf\x06\x1e'
  # For the largest, Pillow's own limit applies first.
  named = f'({size[0]}x{size[1]}|600000000) pixels.*[sS]cale'
  with pytest.raises(codec.ImageError, match=named):
    codec.decode_image(data)


def test_largest_allowed_side_decodes():
  data = _encode(Image.new('RGB', (codec.MAX_SIDE, 2)))
  assert codec.decode_image(data).shape == (2, codec.MAX_SIDE, 3)


@pytest.mark.parametrize('decode', [codec.decode_image, codec.decode_map])
@pytest.mark.parametrize(
  'data', [b'', b'<html>not found</html>', b'GIF89a' + b'0' * 99]
)
def test_other_bytes_are_refused_and_shown(decode, data):
  with pytest.raises(codec.ImageError, match=r'not a PNG, JPEG or WEBP.*(no|<ht|GIF)'):
    decode(data)


@pytest.mark.parametrize('decode', [codec.decode_image, codec.decode_map])
def test_a_damaged_header_is_refused(decode):
  chunk = b'IHDR' + bytes(5)  # Of 13 bytes.
  parts = (struct.pack('>I', 5), chunk, struct.pack('>I', zlib.crc32(chunk)))
  with pytest.raises(codec.ImageError, match=r'its header is damaged: .*IHDR'):
    decode(b'\x89PNG\r\n\x1a\n' + b''.join(parts))


@pytest.mark.parametrize('decode', [codec.decode_image, codec.decode_map])
@pytest.mark.parametrize('format', ['PNG', 'JPEG', 'WEBP'])
def test_truncated_image_is_refused(decode, format):
  noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
  data = _encode(Image.fromarray(noise), format)
  with pytest.raises(codec.ImageError):
    decode(data[: len(data) // 2])


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP'])
@pytest.mark.parametrize('value', range(12))
def test_every_format_is_turned_upright(kind, value):
  """Same as Pillow; invalid orientations are ignored."""
  exif = Image.Exif()
  exif[0x0112] = value
  options = {'JPEG': {'quality': 95}, 'WEBP': {'lossless': True}}.get(kind, {})
  data = _encode(_halves(), kind, exif=exif, **options)
  expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
  np.testing.assert_array_equal(codec.decode_image(data), np.asarray(expected))
  np.testing.assert_array_equal(
    codec.to_rgb(Image.open(io.BytesIO(data))), np.asarray(expected)
  )
  opened = codec.open_image(data)
  assert (opened.format, codec.upright_size(opened)) == (kind, expected.size)
  grey = _encode(_halves().convert('L'), kind, exif=exif, **options)
  assert codec.decode_map(grey).shape == (expected.height, expected.width)


def test_the_first_of_several_images():
  """In files of phones and cameras (MPO), and in animations."""
  first, second = _halves(), Image.new('RGB', (32, 16), 'lime')
  for kind, options in (
    ('MPO', {'quality': 90}),
    ('PNG', {}),
    ('WEBP', {'lossless': True}),
  ):
    alone = _encode(first, 'JPEG' if kind == 'MPO' else kind, **options)
    both = _encode(first, kind, save_all=True, append_images=[second], **options)
    np.testing.assert_array_equal(codec.decode_image(both), codec.decode_image(alone))
    image = Image.open(io.BytesIO(both))
    np.testing.assert_array_equal(codec.to_rgb(image), codec.decode_image(alone))


def test_ink_is_inverted_as_adobe_does():
  image = Image.new('CMYK', (8, 8), (0, 255, 255, 0))
  found = codec.decode_image(_encode(image, 'JPEG', quality=95))
  np.testing.assert_allclose(found[4, 4], RED, atol=4)


def test_files_with_a_valid_signature_are_called_damaged():
  for start in (b'\x89PNG\n\x1a\n', b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff\xe0'):
    with pytest.raises(codec.ImageError, match=r'^its header is damaged: '):
      codec.decode_image(start + b'x' * 40)


@pytest.mark.parametrize('kind', ['GIF', 'BMP', 'TIFF', 'ICO', 'AVIF', 'HEIC', 'SVG'])
def test_other_kinds_are_named(kind):
  data = {
    'AVIF': b'\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf',
    'HEIC': b'\0\0\0\x18ftypheic\0\0\0\0mif1heic',
    'SVG': b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
  }.get(kind) or _encode(_halves(), kind)
  with pytest.raises(
    codec.ImageError, match=rf'^not a PNG, JPEG or WEBP .* it is {kind}: convert'
  ):
    codec.decode_image(data)


def test_git_lfs_pointers_are_named():
  data = b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n'
  for decode in (codec.decode_image, codec.decode_map):
    with pytest.raises(codec.ImageError, match=r'^a Git LFS pointer.*git lfs pull'):
      decode(data)


@pytest.mark.parametrize('depth', [1, 2, 4, 8, 16])
def test_the_highest_level_of_a_map_is_1(depth):
  highest = 2**depth - 1
  levels = np.linspace(0, highest, 64).round().astype(int).reshape(4, 16)
  data = image_files.png(levels, depth, image_files.GREY)
  np.testing.assert_allclose(codec.decode_map(data), levels / highest, rtol=1e-6)
  # A palette of greys is also a map.
  if depth == 8:
    entries = chunk(b'PLTE', np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes())
    data = image_files.png(levels, 8, image_files.PALETTE, entries)
    np.testing.assert_allclose(codec.decode_map(data), levels / 255, rtol=1e-6)


@pytest.mark.filterwarnings('error')
def test_transparency_does_not_change_a_map():
  levels = np.array([[0, 1, 2]])
  grey = chunk(b'PLTE', np.repeat([0, 100, 255], 3).astype(np.uint8).tobytes())
  for data, expected in (
    (
      image_files.png(levels, 8, image_files.PALETTE, grey, chunk(b'tRNS', b'\0\7')),
      [[0, 100, 255]],
    ),
    (image_files.png(levels, 8, image_files.GREY, chunk(b'tRNS', b'\0\1')), levels),
    (
      image_files.png(levels * 257, 16, image_files.GREY, chunk(b'tRNS', b'\1\1')),
      levels,
    ),
  ):
    found = codec.decode_map(data) * 255
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_map_levels_are_shares_of_255():
  levels = np.array([[0, 1, 128, 255]], np.uint8)
  decoded = codec.decode_map(codec.encode_png(levels))
  assert decoded.dtype == np.float32
  np.testing.assert_array_equal(decoded, levels.astype(np.float32) / 255)


def test_jpeg_map_decodes_grey():
  data = _encode(Image.new('L', (8, 8), 100), 'JPEG', quality=100)
  np.testing.assert_allclose(codec.decode_map(data), 100 / 255, atol=2 / 255)


def test_a_map_in_colours_is_refused():
  """Its luminance would be taken for its levels."""
  ramp = np.linspace(0, 255, 64, dtype=np.uint8)
  cold_to_warm = Image.fromarray(
    np.dstack([ramp[None], 0 * ramp[None], ramp[None, ::-1]])
  )
  for image in (cold_to_warm, cold_to_warm.convert('RGBA'), cold_to_warm.quantize(9)):
    with pytest.raises(codec.ImageError, match=r'painted in colours.*in grey'):
      codec.decode_map(_encode(image, 'PNG'))
  grey = Image.fromarray(np.tile(ramp, (64, 1)))
  for mode in ('RGB', 'RGBA', 'P', 'CMYK'):
    kind = 'JPEG' if mode == 'CMYK' else 'PNG'
    found = codec.decode_map(_encode(grey.convert(mode), kind))
    np.testing.assert_allclose(found, np.tile(ramp, (64, 1)) / 255, atol=0.02)
  for kind in ('JPEG', 'WEBP'):
    codec.decode_map(_encode(grey.convert('RGB'), kind, quality=5))


def test_encoded_map_is_rounded_and_clipped():
  values = np.array([[-0.5, 0.0, 0.4999, 0.5, 1.0, 1.5]], np.float32)
  decoded = codec.decode_map(codec.encode_map(values)) * 255
  np.testing.assert_allclose(decoded, [[0, 0, 127, 128, 255, 255]], atol=1e-4)


def test_sixteen_bits_are_scaled():
  """Pillow would clip them at 255."""
  levels = np.array([[0, 256, 32768, 65535]], np.uint16)
  buffer = io.BytesIO()
  Image.fromarray(levels).save(buffer, 'PNG')
  pixels = codec.decode_image(buffer.getvalue())
  assert pixels[0, :, 0].tolist() == [0, 1, 128, 255]
