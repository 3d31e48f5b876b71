"""Intact pictures with odd metadata: modified EXIF, damaged colour profiles, and
arbitrary contents in chunks and segments without pixels."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import image_files
import numpy as np
from mutants import encode
from PIL import ExifTags, Image

from rahf.data.images import codec, inputs

TURNED = 6
KINDS = {
  'PNG': {},
  'JPEG': {'quality': 90},
  'WEBP': {'lossless': True},
}
CHUNKS = (b'tEXt', b'zTXt', b'iTXt', b'pHYs', b'gAMA', b'cHRM', b'sRGB', b'acTL')
CHUNKS += (b'fcTL', b'eXIf', b'iCCP', b'bKGD', b'tIME', b'prVt', b'exIF')
STARTS = (b'', b'Exif\0\0', b'MPF\0', b'ICC_PROFILE\0\1\1', b'Photoshop 3.0\08BIM')
STARTS += (b'http://ns.adobe.com/xap/1.0/\0', b'JFIF\0', b'Adobe', b'FPXR\0')


class Case(NamedTuple):
  """An intact picture with odd metadata.

  Attributes:
    name: how it was made.
    data: the file.
    plain: its pixels without any metadata.
    turn: its EXIF orientation, 0 if any may be applied.
    colours: whether its profile may change the colours.
  """

  name: str
  data: bytes
  plain: np.ndarray
  turn: int
  colours: bool = False


def phone_exif() -> bytes:
  """Returns EXIF as from phones, with an orientation."""
  exif = Image.Exif()
  exif[ExifTags.Base.Make] = 'Maker of phones'
  exif[ExifTags.Base.Model] = 'Phone 7'
  exif[ExifTags.Base.Orientation] = TURNED
  exif[ExifTags.Base.XResolution] = exif[ExifTags.Base.YResolution] = 72.5
  exif[ExifTags.Base.ResolutionUnit] = 2
  exif[ExifTags.Base.Software] = '1.2.3'
  exif[ExifTags.Base.DateTime] = '2024:01:02 03:04:05'
  inside = exif.get_ifd(ExifTags.IFD.Exif)
  inside |= {0x829A: 0.01, 0x8827: 100, 0x9000: b'0232', 0x927C: b'FUJIFILM' * 4}
  place = exif.get_ifd(ExifTags.IFD.GPSInfo)
  place |= {1: 'N', 2: (48.0, 12.0, 3.5), 5: b'\0', 7: (1.0, 2.0, 3.0)}
  return exif.tobytes()


def cases(count: int, seed: int = 0) -> Iterator[Case]:
  """Yields pictures with odd metadata."""
  rng = np.random.default_rng(seed)
  small = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
  picture = Image.fromarray(small).resize((36, 24), Image.Resampling.BICUBIC)
  plain = {k: encode(picture, k, **options) for k, options in KINDS.items()}
  pixels = {kind: codec.decode_image(data) for kind, data in plain.items()}
  profile = image_files.rgb_profile()
  for number in range(count):
    kind = [*KINDS][number % 3]
    way = ('EXIF', 'EXIF', 'profile', 'part')[rng.integers(4)]
    name = f'{number}: {kind}, {way}'
    if way == 'part' and kind != 'WEBP':
      add = _add_chunk if kind == 'PNG' else _add_segment
      yield Case(name, add(rng, plain[kind]), pixels[kind], 0, True)
    elif way == 'profile':
      data = encode(picture, kind, icc_profile=_flip(rng, profile)[0], **KINDS[kind])
      yield Case(name, data, pixels[kind], 1, True)
    else:
      exif, turn = _changed_exif(rng)
      data = encode(picture, kind, exif=exif, **KINDS[kind])
      yield Case(name, data, pixels[kind], turn)


def _changed_exif(rng: np.random.Generator) -> tuple[bytes, int]:
  whole = phone_exif()
  head = len(b'Exif\0\0')
  changed, places = _flip(rng, whole[head:])
  # In the first directory: the bytes up to the third entry, and this entry.
  leads = {
    *range(10),
    *(10 + 12 * entry + byte for entry in range(2) for byte in (0, 1)),
  }
  leads |= set(range(34, 46))
  return whole[:head] + changed, 0 if leads & places else TURNED


def _flip(rng: np.random.Generator, data: bytes) -> tuple[bytes, set[int]]:
  """Changes some bytes, mostly to meaningful values."""
  spoilt = bytearray(data)
  places = {int(place) for place in rng.integers(len(data), size=rng.integers(1, 5))}
  for place in places:
    values = (0, 1, 2, 5, 10, 13, 255, int(rng.integers(256)))
    spoilt[place] = values[rng.integers(len(values))]
  return bytes(spoilt), places


def _anything(rng: np.random.Generator) -> bytes:
  body = rng.bytes(rng.integers(0, 40))
  return body if rng.random() < 0.5 else b'k\0\0' + zlib.compress(body)


def _add_chunk(rng: np.random.Generator, data: bytes) -> bytes:
  kind = CHUNKS[rng.integers(len(CHUNKS))]
  made = image_files.chunk(kind, _anything(rng), error=int(rng.integers(2)))
  place = (33, len(data) - 12)[rng.integers(2)]
  return data[:place] + made + data[place:]


def _add_segment(rng: np.random.Generator, data: bytes) -> bytes:
  # Segments about colours (APP0, APP14) that are too short.
  marker = (0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE)[rng.integers(6)]
  start = STARTS[rng.integers(len(STARTS))]
  body = (start + _anything(rng))[: 11 if marker in (0xE0, 0xEE) else None]
  made = struct.pack('>BBH', 0xFF, marker, len(body) + 2) + body
  place = (2, 20)[rng.integers(2)]
  return data[:place] + made + data[place:]


def check(count: int) -> None:
  """Reads all cases, as files and as PIL images; prints how many."""
  upright = 0
  for case in cases(count):
    try:
      found = inputs.read_pixels(case.data)
    except Exception as error:
      raise AssertionError(f'{case.name}: {error!r}') from error
    assert is_shown(found, case), case.name
    upright += case.turn == TURNED
    try:
      image = Image.open(io.BytesIO(case.data))
    except Exception:
      continue  # Pillow itself cannot read the metadata.
    try:
      assert is_shown(inputs.read_pixels(image), case), f'{case.name}, by PIL'
    except codec.ImageError:
      # Chunks after the pixels, which Pillow reads when it decodes.
      assert 'part' in case.name, f'{case.name}, by PIL'
  print(count, upright)


def is_shown(found: np.ndarray, case: Case) -> bool:
  """Returns whether pixels are those of the picture, in an allowed orientation."""
  if case.colours:
    return found.shape in (case.plain.shape, case.plain.swapaxes(0, 1).shape)
  turns = (case.turn,) if case.turn else range(1, 9)
  methods = (codec.TRANSPOSE_BY_ORIENTATION.get(turn) for turn in turns)
  picture = Image.fromarray(case.plain)
  return any(
    np.array_equal(found, picture.transpose(method) if method is not None else picture)
    for method in methods
  )
