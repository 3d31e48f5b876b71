"""Images on which decoders fail are refused individually, and logged."""

import functools
import io
import struct

import pytest
import util
from PIL import Image

from rahf.data.images import inputs
from served import Gate, ask_form, ask_json, make_image, together, wait_until

ORIENTATION, RESOLUTION, SOFTWARE, EXPOSURE = 0x112, 0x11A, 0x131, 0x829A
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SIGNED, DOUBLE = 1, 2, 3, 4, 5, 7, 10, 12


def make_jpeg(*tags: tuple[int, int, int, bytes]) -> bytes:
  """Returns a JPEG, 40 wide and 24 high, whose EXIF rotates it by 90 degrees.

  Args:
    tags: further EXIF tags: tag, type, count, and the bytes of the value.
  """
  entries = sorted([(ORIENTATION, SHORT, 1, struct.pack('<HH', 6, 0)), *tags])
  table, values = struct.pack('<H', len(entries)), b''
  for tag, kind, count, value in entries:
    if len(value) > 4:
      # After the header, the table, and the offset of the next one.
      offset = 8 + 2 + 12 * len(entries) + 4 + len(values)
      values, value = values + value, struct.pack('<I', offset)
    table += struct.pack('<HHI4s', tag, kind, count, value)
  exif = b'Exif\0\0II*\0\x08\0\0\0' + table + bytes(4) + values
  buffer = io.BytesIO()
  pixels = util.make_pixels(0, 24, 40)
  Image.fromarray(pixels).save(buffer, 'JPEG', quality=95, exif=exif)
  return buffer.getvalue()


def test_the_test_jpeg_is_rotated(port):
  answer = ask_json(port, make_jpeg())
  assert answer.status == 200
  assert (answer.json['height'], answer.json['width']) == (40, 24)


@pytest.mark.parametrize(
  'tag',
  [
    (RESOLUTION, RATIONAL, 1, struct.pack('<iI', -1, 0)),
    (RESOLUTION, SIGNED, 1, struct.pack('<ii', -1, 0)),
    (RESOLUTION, ASCII, 2, b'a\0\0\0'),
    (ORIENTATION + 1, SIGNED, 1, struct.pack('<ii', -1, 0)),
    (EXPOSURE, SIGNED, 1, struct.pack('<ii', -1, 0)),
    (EXPOSURE, RATIONAL, 9999, struct.pack('<II', 1, 0)),
    (SOFTWARE, DOUBLE, 1, struct.pack('<d', float('nan'))),
    (SOFTWARE, BYTE, 1, b'\xff\0\0\0'),
    (SOFTWARE, RATIONAL, 1, struct.pack('<II', 0, 0)),
    (0x8769, SHORT, 1, b'\1\0\0\0'),
    (0x8769, LONG, 1, b'\xff\xff\xff\xff'),
    (0x8825, UNDEFINED, 4, b'abcd'),
    (0x927C, RATIONAL, 1, struct.pack('<iI', -1, 0)),
    (0xFFFF, 99, 1, b'abcd'),
  ],
)
def test_odd_tags_do_not_break_the_service(port, tag):
  for answer in (
    ask_json(port, make_jpeg(tag)),
    ask_form(port, make_jpeg(tag), prompt='a'),
  ):
    if answer.status == 422:
      assert answer.json['detail'].startswith('image: ')
    else:
      assert (answer.status, answer.json['height']) == (200, 40)


def test_a_failing_decoder(port, engine, monkeypatch, caplog):
  """Other images of the same batch are still scored."""
  spoilt, read_pixels = make_image(9), inputs.read_pixels

  def fail(image):
    if isinstance(image, bytes) and image == spoilt:
      raise TypeError('unexpected')
    return read_pixels(image)

  monkeypatch.setattr(inputs, 'read_pixels', fail)
  gate = Gate(engine, monkeypatch)
  good = functools.partial(ask_json, port, make_image())
  bad = functools.partial(ask_json, port, spoilt)
  (first,) = together(good)
  wait_until(lambda: gate.sizes == [1])
  others = together(good, bad, good)
  assert others[1].result(60).status == 422
  detail = others[1].result().json['detail']
  assert detail.startswith('image: the decoder failed (TypeError)')
  wait_until(lambda: engine._batcher.waiting == 2)
  gate.open()
  assert [one.result(60).status for one in (first, others[0], others[2])] == [200] * 3
  (record,) = (one for one in caplog.records if one.name == 'rahf.service.engine')
  assert record.getMessage() == (
    f'The decoder failed on an image of {len(spoilt)} bytes'
  )
  assert record.exc_info[0] is TypeError


@pytest.mark.parametrize(('height', 'width'), [(1, 1), (1, 8192), (8192, 1)])
def test_images_of_extreme_shapes(port, height, width):
  answer = ask_json(port, make_image(0, height, width))
  assert answer.status == 200
  assert (answer.json['height'], answer.json['width']) == (height, width)
