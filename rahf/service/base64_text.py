"""Decodes base64 in all its common forms: wrapped, unpadded, URL-safe, data URLs."""

import binascii
import re
import string
from urllib.parse import unquote

_ALPHABET = (string.ascii_letters + string.digits + '+/').encode()
_URL_SAFE = bytes.maketrans(b'-_', b'+/')
_INVALID = re.compile(r'[^A-Za-z0-9+/]')


def decode(text: str) -> bytes:
  """Decodes base64 text.

  Line ends and tabs are ignored, but not spaces, which may be corrupted plus signs. The
  alphabet may be standard or URL-safe, padding may be missing, and the text may be a
  data URL.

  Raises:
    ValueError: it is not base64, or is incomplete.
  """
  text = text.strip()
  if text[:5].lower() == 'data:':
    text = _payload(text)
  elif text[:8].lower().startswith(('http://', 'https://')):
    raise ValueError(
      'it is a URL, and the service does not fetch URLs; send the file itself'
    )
  data = text.encode('utf-8', 'replace')
  if b'\n' in data or b'\r' in data:
    data = data.translate(None, b'\r\n\t')
  if b'-' in data or b'_' in data:
    data = data.translate(_URL_SAFE)
  return _from_one_line(data)


def _payload(url: str) -> str:
  """Returns the base64 in a data URL (RFC 2397)."""
  head, comma, data = url.partition(',')
  if not comma or not head.lower().rstrip().endswith(';base64'):
    raise ValueError("it is a data URL without ';base64,'")
  return unquote(data) if '%' in data else data


def _from_one_line(data: bytes) -> bytes:
  """Decodes the standard alphabet; checks padding if there is any."""
  digits = data.rstrip(b'=')
  if digits.translate(None, _ALPHABET):
    text = digits.decode()
    found = _INVALID.search(text)
    hint = ', perhaps a + that became a space' if found[0] == ' ' else ''
    raise ValueError(f'not base64: {found[0]!r} is character {found.start() + 1}{hint}')
  padding = len(data) - len(digits)
  if len(digits) % 4 == 1 or (padding and padding != -len(digits) % 4):
    raise ValueError(
      f'incomplete base64: {len(digits)} characters and {padding} of padding'
    )
  return binascii.a2b_base64(digits + b'=' * (-len(digits) % 4))
