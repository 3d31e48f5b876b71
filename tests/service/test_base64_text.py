"""All common forms of base64, and invalid base64."""

import base64
import re
import textwrap

import pytest

from rahf.service.base64_text import decode

# All values of a byte: standard base64 of them has both + and /.
BYTES = bytes(range(256))
TEXT = base64.b64encode(BYTES).decode()
LINES = textwrap.wrap(TEXT, 76)


@pytest.mark.parametrize(
  'text',
  [
    TEXT,
    base64.encodebytes(BYTES).decode(),
    '\n'.join(LINES),
    '\r\n'.join(LINES),
    '\n\t'.join(['', *LINES, '']),
    base64.urlsafe_b64encode(BYTES).decode(),
    TEXT.rstrip('='),
    f'data:image/png;base64,{TEXT}',
    f'data:;base64,{TEXT}',
    f'DATA:image/png;name=a;BASE64,{TEXT}',
    'data:image/png;base64,' + TEXT.replace('+', '%2B').replace('/', '%2F'),
  ],
)
def test_all_common_forms_are_accepted(text):
  assert decode(text) == BYTES


@pytest.mark.parametrize('length', range(5))
def test_padding_may_be_missing(length):
  text = base64.b64encode(BYTES[:length]).decode()
  assert decode(text) == decode(text.rstrip('=')) == BYTES[:length]


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('????', "not base64: '?' is character 1"),
    (TEXT[:10] + ' ' + TEXT[11:], "' ' is character 11, perhaps a + that became"),
    (TEXT[:10] + '☃', "'☃' is character 11"),
    (TEXT[:10] + '=' + TEXT[11:], "'=' is character 11"),
    (str(TEXT.encode()), '"\'" is character 2'),
    (TEXT + '=', 'incomplete base64: 342 characters and 3 of padding'),
    ('YQ=', 'incomplete base64: 2 characters and 1 of padding'),
    ('YWFhY', 'incomplete base64: 5 characters and 0 of padding'),
    ('data:image/png,abcd', "it is a data URL without ';base64,'"),
    ('data:abcd', "it is a data URL without ';base64,'"),
    ('https://host.example/a.png', 'it is a URL, and the service does not fetch'),
  ],
)
def test_invalid_base64_is_explained(text, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    decode(text)
