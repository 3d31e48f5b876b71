"""Bodies of requests, JSON or multipart, to what they ask for."""

import base64
import binascii
import itertools
import re
from typing import Any, NamedTuple

import pydantic
import pydantic_core
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import create_form_parser

from rahf.errors import InputError
from rahf.service.messages import ScoreForm, ScoreRequest

# Of the JSON, strings, colons and brackets; a small body of millions takes gigabytes.
MOST_TOKENS = 60
LONGEST_NAME = 80  # characters of others that are repeated
# A string may lack its end; else its rest would be searched again and again.
TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{:]', re.DOTALL)

JSON, MULTIPART = 'application/json', 'multipart/form-data'


class Asked(NamedTuple):
  """What a request asks for.

  Attributes:
    image: bytes of a file.
    prompt: the text that it was made from.
    maps: whether the heatmaps are wanted.
  """

  image: bytes
  prompt: str
  maps: bool


def read(content_type: str, body: bytes) -> Asked:
  """Reads a body of one of the two kinds.

  Raises:
    InputError: it is damaged, or a field is missing, unknown or of another kind.
  """
  try:
    if kind(content_type) == JSON:
      asked = ScoreRequest.model_validate(_members(body))
      return Asked(_from_base64(asked.image), asked.prompt, asked.maps)
    form = ScoreForm.model_validate(_fields(content_type, body))
    return Asked(form.image, form.prompt, form.maps)
  except pydantic.ValidationError as error:
    problems = error.errors(include_url=False, include_context=False)
    raise InputError('; '.join(map(_in_words, problems))) from None


def kind(content_type: str) -> str:
  """Returns a content type without its parameters."""
  return content_type.partition(';')[0].strip().lower()


def _members(body: bytes) -> Any:
  """Reads flat JSON; what is nested or of many fields is refused before it is built."""
  starts = (body[token.start()] for token in TOKEN.finditer(body))
  outline = bytes(itertools.islice(starts, MOST_TOKENS))
  if len(outline) == MOST_TOKENS:
    raise InputError(f'too many fields; there are {_names(ScoreRequest)}')
  if b'[' in outline or outline.count(b'{') > 1:
    raise InputError('a list or an object is where a plain value belongs')
  try:
    found = pydantic_core.from_json(body)
  except ValueError as error:
    raise InputError(f'Invalid JSON: {error}') from None
  if isinstance(found, dict):
    for name in found:
      _check_name(name, ScoreRequest)
  return found


def _check_name(name: str, message: type[pydantic.BaseModel]) -> None:
  if name not in message.model_fields:
    raise InputError(
      f'{name[:LONGEST_NAME]!r} is no field; there are {_names(message)}'
    )


def _names(message: type[pydantic.BaseModel]) -> str:
  return ', '.join(message.model_fields)


def _from_base64(text: str) -> bytes:
  # A canvas of a browser gives data:image/png;base64,…
  head, comma, rest = text.partition(',')
  data = rest if comma and head.startswith('data:') else text
  try:
    return base64.b64decode(data, validate=True)
  except (binascii.Error, ValueError) as error:
    raise InputError(f'image: not base64 ({error})') from None


def _fields(content_type: str, body: bytes) -> dict[str, Any]:
  found: dict[str, Any] = {}

  def add(name: bytes | None, value: Any) -> None:
    key = (name or b'').decode('utf-8', 'replace')
    _check_name(key, ScoreForm)
    if key in found:
      raise InputError(f'{key}: there twice')
    found[key] = value

  def add_file(file: Any) -> None:
    file.file_object.seek(0)
    add(file.field_name, file.file_object.read())
    file.close()

  try:
    parser = create_form_parser(
      {'Content-Type': content_type},
      lambda field: add(field.field_name, field.value or b''),
      add_file,
      # The body is in memory already.
      {'MAX_MEMORY_FILE_SIZE': len(body) + 1},
    )
    parser.write(body)
    parser.finalize()
  except FormParserError as error:
    raise InputError(f'the multipart body is damaged: {error}') from None
  return found


def _in_words(problem: Any) -> str:
  where = '.'.join(map(str, problem['loc']))
  return f'{where}: {problem["msg"]}' if where else problem['msg']
