"""Bit depths, transparency and colour profiles give the colours of a viewer."""

import io
import zlib

import image_files as files
import numpy as np
import pytest
from image_files import COLOURS, GREY, GREY_ALPHA, PALETTE, chunk, encode, png
from PIL import Image, ImageCms

from rahf.data.images import codec, inputs
from rahf.data.images.codec import decode_image

RAMP = np.arange(256, dtype=np.uint8).reshape(4, 64)
PICTURE = np.stack([RAMP, RAMP[::-1], RAMP // 2], -1)
SWAPPED = {'r': files.SRGB['g'], 'g': files.SRGB['r'], 'b': files.SRGB['b']}


def opened(data: bytes) -> Image.Image:
  return Image.open(io.BytesIO(data))


# Transparency


@pytest.mark.parametrize('depth', [1, 2, 4, 8, 16])
def test_a_transparent_level_of_grey(depth):
  """Only pixels of this level become white."""
  highest = 2**depth - 1
  levels = np.unique([0, 1, highest // 2, highest - 1, highest])[None]
  for key in levels[0]:
    tag = chunk(b'tRNS', int(key).to_bytes(2))
    expected = levels >> 8 if depth == 16 else levels * (255 // highest)
    expected = np.where(levels == key, 255, expected)
    found = decode_image(png(levels, depth, GREY, tag))
    np.testing.assert_array_equal(found, np.repeat(expected[..., None], 3, -1))


@pytest.mark.parametrize('depth', [8, 16])
def test_a_transparent_colour(depth):
  """With 16 bits, a colour that differs only in the lower 8 is another."""
  scale = 257 if depth == 16 else 1
  levels = np.array([[[1, 2, 3], [1, 2, 4], [0, 0, 0], [200, 0, 9]]]) * scale
  near = levels[:, :1] + [0, 0, 1] if depth == 16 else levels[:, 1:2]
  levels = np.concatenate([levels, near], 1)
  tag = chunk(b'tRNS', levels[0, 0].astype('>u2').tobytes())
  expected = levels >> 8 if depth == 16 else levels
  expected[0, 0] = 255
  found = decode_image(png(levels, depth, COLOURS, tag))
  np.testing.assert_array_equal(found, expected)


def test_a_transparent_black_of_16_bits():
  """Colours that are nearly black, 0 with 8 bits, stay opaque."""
  levels = np.zeros((2, 2, 3), int)
  levels[0, 1] = 255
  data = png(levels, 16, COLOURS, chunk(b'tRNS', bytes(6)))
  expected = [[[255] * 3, [0] * 3], [[255] * 3, [255] * 3]]
  assert decode_image(data).tolist() == expected
  # Pillow keeps only 8 bits, which cannot be told apart.
  key = chunk(b'tRNS', b'\xff\xff' * 3)
  deep = png(np.full((1, 2, 3), [[[65535] * 3, [256, 0, 0]]]), 16, COLOURS, key)
  for given in (deep, opened(deep)):
    assert inputs.read_pixels(given)[0].tolist() == [[255] * 3, [1, 0, 0]]


def test_transparent_entries_of_a_palette():
  palette = chunk(b'PLTE', bytes([9, 8, 7, 60, 50, 40, 0, 0, 255]))
  alphas = chunk(b'tRNS', bytes([0, 102]))
  found = decode_image(png([[0, 1, 2]], 2, PALETTE, palette, alphas))
  # 102 of 255 is 0.4.
  half = np.array([60, 50, 40]) * 0.4 + 255 * 0.6
  np.testing.assert_allclose(found[0], [[255] * 3, half, [0, 0, 255]], atol=0.51)


@pytest.mark.parametrize('mode', ['RGBa', 'La', 'RGBA', 'LA'])
def test_alpha_of_pil_images(mode):
  image = Image.fromarray(np.array([[[0, 102], [200, 255]]], np.uint8), 'LA')
  image = image.convert('LA' if mode == 'La' else 'RGBA').convert(mode)
  np.testing.assert_allclose(inputs.read_pixels(image)[0, :, 0], [153, 200], atol=1)


def test_alpha_of_16_bits():
  data = png([[[0, 0], [0, 102 * 257], [500, 65535]]], 16, GREY_ALPHA)
  assert decode_image(data)[0, :, 1].tolist() == [255, 153, 1]


def test_levels_of_16_bits_keep_their_upper_byte():
  """Exact for 8-bit images times 257 or 256, in colour and grey."""
  levels = np.arange(65536).reshape(256, 256)
  grey = decode_image(png(levels, 16, GREY))
  np.testing.assert_array_equal(grey[..., 0], levels // 256)
  colours = decode_image(png(np.repeat(levels[..., None], 3, -1), 16, COLOURS))
  np.testing.assert_array_equal(colours, grey)
  for image in (
    Image.fromarray(levels.astype(np.uint16)),
    Image.frombytes('I;16B', (256, 256), levels.astype('>u2').tobytes()),
  ):
    np.testing.assert_array_equal(inputs.read_pixels(image), grey)


# Colour profiles


def tagged(profile: bytes) -> dict[str, bytes | Image.Image]:
  image = Image.fromarray(PICTURE)
  return {
    'PNG': png(PICTURE, 8, COLOURS, files.icc_chunk(profile)),
    'PNG by Pillow': encode(image, icc_profile=profile),
    'WEBP': encode(image, 'WEBP', lossless=True, icc_profile=profile),
    'PIL': opened(encode(image, icc_profile=profile)),
    'JPEG': encode(
      image, 'JPEG', quality=100, subsampling='4:4:4', icc_profile=profile
    ),
  }


@pytest.mark.parametrize('kind', ['PNG', 'PNG by Pillow', 'WEBP', 'PIL', 'JPEG'])
def test_profiles_are_converted_to_srgb(kind):
  """A display with swapped red and green, and one with linear light."""
  plain = inputs.read_pixels(tagged(b'')[kind])
  swapped = inputs.read_pixels(tagged(files.rgb_profile(SWAPPED))[kind])
  np.testing.assert_allclose(swapped.astype(int), plain[..., [1, 0, 2]], atol=1)
  linear = inputs.read_pixels(tagged(files.rgb_profile(tone=files.curve([0, 1])))[kind])
  expected = 255 * files.from_linear(plain / 255)
  np.testing.assert_allclose(linear.astype(int), expected, atol=1)


@pytest.mark.parametrize(
  'profile',
  [
    files.rgb_profile(),
    files.rgb_profile(tone=files.curve(files.to_linear(np.linspace(0, 1, 4096)))),
    ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes(),
  ],
)
def test_profiles_of_srgb_change_no_bit(profile):
  for kind, given in tagged(profile).items():
    if kind != 'JPEG':
      np.testing.assert_array_equal(inputs.read_pixels(given), PICTURE)
  plain = decode_image(encode(Image.fromarray(PICTURE), 'JPEG'))
  with_profile = encode(Image.fromarray(PICTURE), 'JPEG', icc_profile=profile)
  np.testing.assert_array_equal(decode_image(with_profile), plain)


def test_a_profile_of_grey():
  profile = files.icc_chunk(files.grey_profile(files.curve(files.STEPS**1.8)))
  expected = 255 * files.from_linear((RAMP / 255) ** 1.8)
  deep, both = RAMP.astype(int) * 257, np.stack([RAMP, RAMP * 0 + 255], -1)
  for data in (
    png(RAMP, 8, GREY, profile),
    png(deep, 16, GREY, profile),
    png(both, 8, GREY_ALPHA, profile),
  ):
    found = decode_image(data)
    np.testing.assert_allclose(found[..., 1].astype(int), expected, atol=1.5)
  # With one bit: black and white are the same in any profile.
  assert decode_image(png([[0, 1]], 1, GREY, profile))[0, :, 0].tolist() == [0, 255]


def test_a_profile_of_ink():
  """Without ink the paper is white."""
  image = Image.new('CMYK', (16, 8))
  image.paste((0, 0, 0, 255), (8, 0, 16, 8))
  data = encode(image, 'JPEG', quality=100, icc_profile=files.cmyk_profile())
  for given in (data, opened(data), image):
    found = inputs.read_pixels(given)
    np.testing.assert_allclose(found[4, 2], 255, atol=3)
    np.testing.assert_allclose(found[4, 13], 0, atol=3)


def test_colours_are_converted_before_compositing_over_white():
  profile = files.icc_chunk(files.rgb_profile(SWAPPED))
  found = decode_image(png([[[200, 0, 0, 102]]], 8, 6, profile))
  np.testing.assert_allclose(found[0, 0], [153, 80 + 153, 153], atol=1)
  palette = chunk(b'PLTE', bytes([200, 0, 0]))
  found = decode_image(png([[0]], 8, PALETTE, palette, profile))
  np.testing.assert_allclose(found[0, 0], [0, 200, 0], atol=1)


@pytest.mark.parametrize(
  'tag',
  [
    chunk(b'iCCP', b''),
    chunk(b'iCCP', b'a\0\0not packed'),
    chunk(b'iCCP', b'a\0\0' + zlib.compress(b'not a profile')),
    chunk(b'iCCP', b'a\0\0' + zlib.compress(files.rgb_profile(SWAPPED))[:-9]),
    chunk(b'iCCP', b'a\0\0' + zlib.compress(files.rgb_profile(SWAPPED)), error=1),
    chunk(b'iCCP', b'a\0\0' + zlib.compress(bytes(2**24 + 1))),
    files.icc_chunk(files.rgb_profile(SWAPPED)[:300]),
    files.icc_chunk(files.grey_profile(files.curve([0, 1]))),
    files.icc_chunk(files.cmyk_profile()),
  ],
)
def test_unusable_profiles_are_ignored(tag):
  np.testing.assert_array_equal(decode_image(png(PICTURE, 8, COLOURS, tag)), PICTURE)


def test_a_colour_profile_is_ignored_for_grey():
  data = png(RAMP, 8, GREY, files.icc_chunk(files.rgb_profile(SWAPPED)))
  np.testing.assert_array_equal(decode_image(data)[..., 0], RAMP)


def test_a_profile_larger_than_pillow_reads():
  """With two megabytes of padding, which count as part of it."""
  profile = bytearray(files.rgb_profile(SWAPPED) + bytes(2**21))
  profile[:4] = len(profile).to_bytes(4)
  found = decode_image(png(PICTURE, 8, COLOURS, files.icc_chunk(bytes(profile))))
  np.testing.assert_allclose(found.astype(int), PICTURE[..., [1, 0, 2]], atol=1)


def test_a_profile_in_parts():
  """JPEG segments have up to 64 kB; their numbers give the order."""
  profile = bytearray(files.rgb_profile(SWAPPED) + bytes(100_000))
  profile[:4] = len(profile).to_bytes(4)
  plain = encode(Image.fromarray(PICTURE), 'JPEG', quality=100, subsampling='4:4:4')
  parts = [profile[:40_000], profile[40_000:80_000], profile[80_000:]]

  def segment(number, part):
    body = b'ICC_PROFILE\0' + bytes([number, 3]) + part
    return b'\xff\xe2' + (len(body) + 2).to_bytes(2) + body

  segments = [segment(number, bytes(part)) for number, part in enumerate(parts, 1)]
  data = plain[:2] + b''.join(reversed(segments)) + plain[2:]
  found = decode_image(data).astype(int)
  np.testing.assert_allclose(found, PICTURE[..., [1, 0, 2]], atol=2)
  # If one is missing, there is no profile.
  data = plain[:2] + b''.join(segments[:2]) + plain[2:]
  np.testing.assert_array_equal(decode_image(data), decode_image(plain))


def test_a_profile_does_not_change_a_map():
  """Its levels are data."""
  profile = files.icc_chunk(files.grey_profile(files.curve([0, 1])))
  np.testing.assert_array_equal(
    codec.decode_map(png(RAMP, 8, GREY, profile)), RAMP.astype(np.float32) / 255
  )
