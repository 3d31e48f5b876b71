"""Multipart forms: encodings of parts, and truncated forms."""

import base64
import binascii

import pytest

from rahf.errors import InputError
from rahf.service import forms, reading

KIND = 'multipart/form-data; boundary=x'
IMAGE = bytes(range(256)) * 3


def part(name: str, value: bytes, *headers: str) -> bytes:
  lines = f'Content-Disposition: form-data; name="{name}"', *headers
  head = ''.join(f'{line}\r\n' for line in lines).encode()
  return b'--x\r\n%s\r\n%s\r\n' % (head, value)


def read(*parts: bytes) -> dict[str, bytes]:
  return forms.read(KIND, b''.join([*parts, b'--x--\r\n']), lambda name: None)


@pytest.mark.parametrize(
  ('coding', 'encode'),
  [
    ('binary', bytes),
    ('8BIT', bytes),
    # As curl writes it with encoder=base64: 76 columns.
    ('base64', lambda data: base64.encodebytes(data).replace(b'\n', b'\r\n')),
    ('Base64', base64.b64encode),
    ('quoted-printable', binascii.b2a_qp),
  ],
)
def test_transfer_encodings_are_decoded(coding, encode):
  header = f'Content-Transfer-Encoding: {coding}'
  assert read(part('image', encode(IMAGE), header)) == {'image': IMAGE}


def test_other_transfer_encodings_are_refused():
  for coding, message in (
    ('x-rot13', "prompt: unknown Content-Transfer-Encoding 'x-rot13'"),
    ('base64', "prompt: not base64: ' ' is character 2"),
  ):
    with pytest.raises(InputError, match=message):
      read(part('prompt', b'a red circle', f'Content-Transfer-Encoding: {coding}'))


def test_file_names_do_not_matter():
  for name in ('猫.png', 'a"b".png', '../a.png', '', 'a' * 3000):
    escaped = name.replace('"', '\\"')
    disposition = f'form-data; name="image"; filename="{escaped}"'
    head = f'--x\r\nContent-Disposition: {disposition}\r\n\r\n'.encode()
    assert read(head + IMAGE + b'\r\n') == {'image': IMAGE}


def test_a_truncated_form_is_refused():
  """Otherwise a form without its last field would look complete."""
  whole = part('image', b'abc') + part('prompt', b'a') + part('maps', b'0') + b'--x--'
  assert forms.read(KIND, whole, lambda name: None).keys() == {
    *('image', 'prompt', 'maps')
  }
  for end in range(len(whole)):
    with pytest.raises(InputError, match='ends before its final boundary'):
      forms.read(KIND, whole[:end], lambda name: None)


def test_a_repeated_field_is_refused():
  with pytest.raises(InputError, match='prompt: given twice'):
    read(part('prompt', b'a'), part('image', b''), part('prompt', b'a'))


def test_a_part_without_a_name_is_refused():
  with pytest.raises(InputError, match='a part has no name'):
    read(b'--x\r\nContent-Type: text/plain\r\n\r\na\r\n')


def parse(image: bytes, prompt: bytes) -> reading.ParsedRequest:
  body = part('image', image) + part('prompt', prompt) + b'--x--\r\n'
  return reading.read(KIND, body)


def test_prompts_from_text_files():
  """Windows writes them with a byte order mark, which is not part of the prompt."""
  assert parse(IMAGE, b'\xef\xbb\xbfa cat').prompt == 'a cat'
  for prompt, message in (
    ('a cat'.encode('utf-16'), 'prompt: Input should be a valid string'),
    ('a cat'.encode('utf-16-le'), 'prompt: it contains NUL characters'),
  ):
    with pytest.raises(InputError, match=message):
      parse(IMAGE, prompt)


@pytest.mark.parametrize(
  'image',
  [
    b'data:image/png;base64,iVBORw0KGgo=',
    *(b'iVBORw0KGgoAAAAN', b'/9j/4AAQSkZJRg', b'UklGRiQAAABXRUJQ'),
    b'https://host.example/a.png',
  ],
)
def test_text_instead_of_a_file_is_refused(image):
  with pytest.raises(InputError, match=r'image: text .* not a file; in a form send'):
    parse(image, b'a')
