"""Reads multipart forms (RFC 7578)."""

import binascii
from collections.abc import Callable

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from rahf.errors import InputError
from rahf.service import base64_text

# Most characters of client input to repeat in a message.
LONGEST_REPEATED = 80


def read(
  content_type: str, body: bytes, check: Callable[[str], None]
) -> dict[str, bytes]:
  """Returns the fields of a form by name, as bytes.

  Args:
    content_type: the header, with the boundary.
    body: the whole body.
    check: called with each field name before its value is read; may raise.

  Raises:
    InputError: the body is damaged or ends early, or a field is given twice.
  """
  form = _Form(check)
  try:
    boundary = parse_options_header(content_type)[1].get(b'boundary')
    if not boundary:
      raise FormParserError('Content-Type has no boundary')
    parser = MultipartParser(boundary, form.callbacks())
    parser.write(body)
    parser.finalize()
  except FormParserError as error:
    raise InputError(f'the multipart body is damaged: {error}') from None
  if not form.complete:
    raise InputError('the multipart body ends before its final boundary')
  return form.fields


class _Form:
  """Collects the fields that the parser reports.

  Attributes:
    fields: the complete fields, by name.
    complete: whether the final boundary was read.
  """

  def __init__(self, check: Callable[[str], None]):
    self.fields: dict[str, bytes] = {}
    self.complete = False
    self._check = check

  def callbacks(self) -> dict[str, Callable[..., None]]:
    """Returns the callbacks of `MultipartParser` by name."""
    return {
      'on_part_begin': self._begin,
      'on_header_field': self._add_to_header_name,
      'on_header_value': self._add_to_header,
      'on_header_end': self._end_header,
      'on_headers_finished': self._open,
      'on_part_data': self._add_data,
      'on_part_end': self._close,
      'on_end': self._end,
    }

  def _begin(self) -> None:
    self._headers: dict[bytes, bytes] = {}
    self._header_name, self._header = bytearray(), bytearray()
    self._data = bytearray()

  def _add_to_header_name(self, data: bytes, start: int, end: int) -> None:
    self._header_name += data[start:end]

  def _add_to_header(self, data: bytes, start: int, end: int) -> None:
    self._header += data[start:end]

  def _end_header(self) -> None:
    self._headers[bytes(self._header_name).lower()] = bytes(self._header).strip()
    self._header_name.clear()
    self._header.clear()

  def _open(self) -> None:
    disposition = self._headers.get(b'content-disposition', b'')
    name = parse_options_header(disposition)[1].get(b'name')
    if name is None:
      raise FormParserError('a part has no name in its Content-Disposition')
    self._name = name.decode('utf-8', 'replace')
    self._check(self._name)
    if self._name in self.fields:
      raise InputError(f'{self._name}: given twice')

  def _add_data(self, data: bytes, start: int, end: int) -> None:
    self._data += data[start:end]

  def _close(self) -> None:
    coding = self._headers.get(b'content-transfer-encoding', b'binary').lower()
    self.fields[self._name] = _decode(self._name, coding, bytes(self._data))
    self._data.clear()

  def _end(self) -> None:
    self.complete = True


def _decode(name: str, coding: bytes, data: bytes) -> bytes:
  """Decodes a Content-Transfer-Encoding, which some clients still use."""
  if coding in (b'binary', b'8bit', b'7bit'):
    return data
  if coding == b'quoted-printable':
    return binascii.a2b_qp(data)
  if coding == b'base64':
    try:
      return base64_text.decode(data.decode('latin-1'))
    except ValueError as error:
      raise InputError(f'{name}: {error}') from None
  text = coding.decode('latin-1')[:LONGEST_REPEATED]
  raise InputError(f'{name}: unknown Content-Transfer-Encoding {text!r}')
