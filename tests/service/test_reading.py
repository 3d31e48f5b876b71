"""Invalid bodies, and the cost of parsing them."""

import json
import time
import tracemalloc

import pytest

from rahf.errors import InputError
from rahf.service import reading
from served import ask, ask_form, make_image, running


@pytest.mark.parametrize(
  ('body', 'message'),
  [
    ('{"image": "", ', 'Invalid JSON'),
    ('{"image": ""}', 'prompt: Field required'),
    ('{"image": "", "prompt": 3}', 'prompt: Input should be a valid string'),
    ('{"image": "?", "prompt": "a"}', 'image: not base64'),
    (
      '{"image": "", "prompt": "a", "map": true}',
      "'map' is not a field; the fields are image, prompt, maps",
    ),
    (json.dumps({'a' * 5000: 1}), f"'{'a' * 80}' is not a field"),
    ('{"image": "[{", "prompt": []}', 'a list or an object instead'),
    ('{"image": {"prompt": "a"}}', 'a list or an object instead'),
    ('[' * 50, 'a list or an object instead of a plain value'),
    ('[' * 100_000, 'too many fields'),
    ('"' + '\\"' * 100_000, 'Invalid JSON'),
    ('"\\', 'Invalid JSON'),
    (json.dumps(dict.fromkeys('abcdefghi')), "'a' is not a field"),
    ('"a"', 'the body is not a JSON object with image, prompt, maps'),
    ('null', 'the body is not a JSON object'),
    ('{"image": "", "prompt": "a\\ud800"}', 'prompt: Input should be a valid string'),
    (
      '{"prompt": "a", "image": "", "prompt": "b"}',
      "Invalid JSON: 'prompt' occurs twice",
    ),
    ('{"image": "", "prompt": "a", "image": ""}', "Invalid JSON: 'image' occurs twice"),
    ('{"image": "", "prompt": "a", "maps": NaN}', 'Invalid JSON: NaN'),
    (
      '{"image": "", "prompt": "a", "maps": 1e999}',
      'Invalid JSON: the number 1e999 is too',
    ),
    ('{"image": "", "prompt": "a\nb"}', 'Invalid JSON: Invalid control character'),
    ('{"image": "", "prompt": "a"} {}', 'a list or an object instead'),
    ('{"image": "", "prompt": " "}', 'prompt: it is empty'),
    ('{"image": "", "prompt": "a\\u0000"}', 'prompt: it contains NUL characters'),
    ('{"image": "", "prompt": "a"}'.encode('utf-16'), 'the body contains NUL bytes'),
    ('{"image": "", "prompt": "a"}'.encode('utf-16-le'), 'the body contains NUL bytes'),
    ('{"image": "", "prompt": "é"}'.encode('latin-1'), 'the body is not UTF-8'),
    ('', 'the body is empty'),
    (
      json.dumps({'image': '', 'prompt': 'a' * 10_001}),
      'prompt: String should have at most 10000 characters',
    ),
  ],
)
def test_invalid_json(port, body, message):
  answer = ask(port, 'POST', '/score', body, Content_Type='application/json')
  assert answer.status == 422
  assert answer.json['detail'].startswith(message)


def test_invalid_forms(port):
  image = make_image()
  for answer, message in (
    (ask_form(port, image), 'prompt: Field required'),
    (ask_form(port, image, prompt=''), 'prompt: it is empty; send the text'),
    (ask_form(port, image, prompt='a', image='b'), 'image: given twice'),
    (ask_form(port, image, prompt='a', maps='perhaps'), 'maps: Input should be a val'),
    (ask_form(port, image, **{'b' * 500: ''}), f"'{'b' * 80}' is not a field; the"),
    (
      ask(
        port, 'POST', '/score', b'--y', Content_Type='multipart/form-data; boundary=x'
      ),
      'the multipart body is damaged',
    ),
    (ask(port, 'POST', '/score', b'', Content_Type='multipart/form-data'), 'the body'),
    (
      ask(port, 'POST', '/score', b'--', Content_Type='multipart/form-data'),
      'the multipart body is damaged: Content-Type has no boundary',
    ),
  ):
    assert answer.status == 422
    assert answer.json['detail'].startswith(message)
  answer = ask(port, 'POST', '/score', b'a', Content_Type='text/plain')
  assert answer.status == 415
  assert "'text/plain'" in answer.json['detail']
  answer = ask(port, 'POST', '/score', b'a', Content_Type='a' * 9000)
  assert len(answer.json['detail']) < 200


@pytest.mark.parametrize('value', ['0', '"a"', '[]', '{}'])
def test_many_values_are_not_built(value):
  members = ','.join(f'"{number}":{value}' for number in range(500_000))
  body = f'{{{members}}}'.encode()
  tracemalloc.start()
  try:
    with pytest.raises(InputError) as caught:
      reading.read('application/json', body)
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert len(str(caught.value)) < 100
  assert peak < 100_000


def test_many_unknown_fields_are_refused_at_once(engine):
  fields = ','.join(f'"{number}":1' for number in range(900_000))
  part = '--x\r\nContent-Disposition: form-data; name="{}"\r\n\r\n\r\n'
  form = ''.join(map(part.format, range(150_000)))
  with running(engine) as port:
    for body, kind, message in (
      (f'{{{fields}}}', 'application/json', 'too many fields; the fields are image'),
      (form, 'multipart/form-data; boundary=x', "'0' is not a field; the fields are"),
    ):
      start = time.monotonic()
      answer = ask(port, 'POST', '/score', body.encode(), Content_Type=kind)
      assert time.monotonic() - start < 3
      assert answer.status == 422
      assert answer.json['detail'].startswith(message)
      assert len(answer.body) < 200
