"""Parses request bodies, JSON or multipart."""

import codecs
import itertools
import re
from typing import Any, NamedTuple

import pydantic

from rahf.errors import InputError
from rahf.fileio import strict_json
from rahf.service import base64_text, forms
from rahf.service.messages import ScoreForm, ScoreRequest

# Limit on strings, colons and brackets in the JSON: parsing millions takes gigabytes.
MOST_TOKENS = 60
# Also matches unterminated strings; otherwise their rest would be searched repeatedly.
TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{:]', re.DOTALL)
# How PNG, JPEG and WEBP files start in base64, and how URLs start.
TEXT = re.compile(rb'iVBORw0KGgo|/9j/|UklGR|(?i:data:|https?://)')

JSON, MULTIPART = 'application/json', 'multipart/form-data'


class ParsedRequest(NamedTuple):
  """A parsed request.

  Attributes:
    image: the bytes of a file.
    prompt: the text the image was made from.
    maps: whether to return heatmaps.
  """

  image: bytes
  prompt: str
  maps: bool


def read(content_type: str, body: bytes) -> ParsedRequest:
  """Parses a body, JSON or multipart.

  Raises:
    InputError: it is malformed, or a field is missing, unknown, given twice or of the
      wrong type.
  """
  if not body:
    raise InputError('the body is empty')
  try:
    if kind(content_type) == JSON:
      fields = ScoreRequest.model_validate(_json_fields(body))
      found = ParsedRequest(_from_base64(fields.image), fields.prompt, fields.maps)
    else:
      form = ScoreForm.model_validate(_form_fields(content_type, body))
      found = ParsedRequest(form.image, form.prompt, form.maps)
  except pydantic.ValidationError as error:
    problems = error.errors(include_url=False, include_context=False)
    raise InputError('; '.join(map(_describe, problems))) from None
  _check(found)
  return found


def kind(content_type: str) -> str:
  """Returns a content type without its parameters."""
  return content_type.partition(';')[0].strip().lower()


def _json_fields(body: bytes) -> dict[str, Any]:
  """Parses flat JSON; refuses nested or large objects before building them."""
  if b'\0' in body:
    raise InputError('the body contains NUL bytes; send UTF-8, not UTF-16')
  starts = (body[token.start()] for token in TOKEN.finditer(body))
  outline = bytes(itertools.islice(starts, MOST_TOKENS))
  if len(outline) == MOST_TOKENS:
    raise InputError(f'too many fields; the fields are {_names(ScoreRequest)}')
  if b'[' in outline or outline.count(b'{') > 1:
    raise InputError(
      'a list or an object instead of a plain value; send one image per request'
    )
  try:
    found = strict_json.parse(body.decode('utf-8-sig'))
  except UnicodeDecodeError as error:
    raise InputError(f'the body is not UTF-8 ({error.reason})') from None
  except ValueError as error:
    raise InputError(f'Invalid JSON: {error}') from None
  if not isinstance(found, dict):
    raise InputError(f'the body is not a JSON object with {_names(ScoreRequest)}')
  for name in found:
    _check_name(name, ScoreRequest)
  return found


def _form_fields(content_type: str, body: bytes) -> dict[str, bytes]:
  found = forms.read(content_type, body, lambda name: _check_name(name, ScoreForm))
  if 'prompt' in found:
    # The prompt may be a text file that starts with a byte order mark.
    found['prompt'] = found['prompt'].removeprefix(codecs.BOM_UTF8)
  return found


def _check_name(name: str, message: type[pydantic.BaseModel]) -> None:
  if name not in message.model_fields:
    shown = name[: forms.LONGEST_REPEATED]
    raise InputError(f'{shown!r} is not a field; the fields are {_names(message)}')


def _names(message: type[pydantic.BaseModel]) -> str:
  return ', '.join(message.model_fields)


def _from_base64(text: str) -> bytes:
  try:
    return base64_text.decode(text)
  except ValueError as error:
    raise InputError(f'image: {error}') from None


def _check(request: ParsedRequest) -> None:
  """Refuses values that are well-formed but obviously mistakes."""
  if TEXT.match(request.image):
    raise InputError(
      f'image: text ({request.image[:12]!r}…), not a file; in a form send the file '
      'itself, in JSON its base64, encoded once'
    )
  if not request.prompt.strip():
    raise InputError('prompt: it is empty; send the text the image was made from')
  if '\0' in request.prompt:
    raise InputError('prompt: it contains NUL characters; send UTF-8, not UTF-16')


def _describe(problem: Any) -> str:
  where = '.'.join(map(str, problem['loc']))
  return f'{where}: {problem["msg"]}' if where else problem['msg']
