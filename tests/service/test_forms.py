"""Multipart forms: encodings of parts, and forms that are cut short."""

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
def test_transfer_encodings_are_undone(coding, encode):
  header = f'Content-Transfer-Encoding: {coding}'
  assert read(part('image', encode(IMAGE), header)) == {'image': IMAGE}


def test_other_transfer_encodings_are_refused():
  for coding, message in (
    ('x-rot13', "prompt: its Content-Transfer-Encoding 'x-rot13' is not known"),
    ('base64', "prompt: not base64: ' ' is character 2"),
  ):
    with pytest.raises(InputError, match=message):
      read(part('prompt', b'a red circle', f'Content-Transfer-Encoding: {coding}'))


def test_names_of_files_do_not_matter():
  for name in ('猫.png', 'a"b".png', '../a.png', '', 'a' * 3000):
    escaped = name.replace('"', '\\"')
    disposition = f'form-data; name="image"; filename="{escaped}"'
    head = f'--x\r\nContent-Disposition: {disposition}\r\n\r\n'.encode()
    assert read(head + IMAGE + b'\r\n') == {'image': IMAGE}


def test_a_form_that_is_cut_short_is_refused():
  """Wherever it ends: else a form without its last field would be a whole one."""
  whole = part('image', b'abc') + part('prompt', b'a') + part('maps', b'0') + b'--x--'
  assert forms.read(KIND, whole, lambda name: None).keys() == {
    *('image', 'prompt', 'maps')
  }
  for end in range(len(whole)):
    with pytest.raises(InputError, match='ends before its final boundary'):
      forms.read(KIND, whole[:end], lambda name: None)


def test_a_field_that_is_there_twice_is_refused():
  with pytest.raises(InputError, match='prompt: there twice'):
    read(part('prompt', b'a'), part('image', b''), part('prompt', b'a'))


def test_a_part_without_a_name_is_refused():
  with pytest.raises(InputError, match='a part has no name'):
    read(b'--x\r\nContent-Type: text/plain\r\n\r\na\r\n')


def asked(image: bytes, prompt: bytes) -> reading.Asked:
  body = part('image', image) + part('prompt', prompt) + b'--x--\r\n'
  return reading.read(KIND, body)


def test_prompts_from_text_files():
  """As Windows writes them: with a byte order mark, which is not of the prompt."""
  assert asked(IMAGE, b'\xef\xbb\xbfa cat').prompt == 'a cat'
  for prompt, message in (
    ('a cat'.encode('utf-16'), 'prompt: Input should be a valid string'),
    ('a cat'.encode('utf-16-le'), 'prompt: it has NUL characters'),
  ):
    with pytest.raises(InputError, match=message):
      asked(IMAGE, prompt)


@pytest.mark.parametrize(
  'image',
  [
    b'data:image/png;base64,iVBORw0KGgo=',
    *(b'iVBORw0KGgoAAAAN', b'/9j/4AAQSkZJRg', b'UklGRiQAAABXRUJQ'),
    b'https://host.example/a.png',
  ],
)
def test_text_where_a_file_belongs_is_refused(image):
  with pytest.raises(InputError, match=r'image: text .* not a file; in a form send'):
    asked(image, b'a')
