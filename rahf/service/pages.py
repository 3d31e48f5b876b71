"""The service's HTML pages: one to score an image, and the reference."""

from collections.abc import Mapping
from typing import Any

from rahf.drawing import html_page
from rahf.inference.scorer import ScorerDescription
from rahf.service import messages
from rahf.version import __version__

ALLOWED = "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'"


def home(description: ScorerDescription, limit: int) -> html_page.Page:
  """Returns the page for scoring an image.

  Args:
    description: the description of the model.
    limit: maximum bytes in a request.
  """
  outputs = description.outputs
  data = {
    'colours': html_page.colours(),
    'scores': {name: one.to_dict() for name, one in outputs.scores.items()},
    'maps': {name: str(one) for name, one in outputs.maps.items()},
    'limit': limit,
  }
  return html_page.render(
    'rahf.service',
    'service',
    allowed=ALLOWED,
    title='RAHF: score an image',
    summary=f'{description.summary}; rahf {__version__}.',
    limit=f'{limit / 2**20:g}',
    longest=messages.LONGEST_PROMPT,
    score_range=outputs.score_ranges,
    maps=outputs.maps,
    keyword_range=outputs.keywords.scale if outputs.keywords else '',
    data=html_page.embed(data),
  )


def reference(openapi: Mapping[str, Any]) -> html_page.Page:
  """Returns the OpenAPI description as a page without scripts."""
  return html_page.render(
    'rahf.service',
    'reference',
    scripted=False,
    title=f'{openapi["info"]["title"]} {openapi["info"]["version"]}',
    summary=openapi['info']['description'],
    operations=[
      _operation(f'{method.upper()} {path}', operation)
      for path, methods in openapi['paths'].items()
      for method, operation in methods.items()
    ],
    messages=[
      {'name': name, 'text': schema.get('description', ''), 'rows': _fields(schema)}
      for name, schema in openapi['components']['schemas'].items()
    ],
  )


def _operation(name: str, operation: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the template values for one method of one path."""
  body = operation.get('requestBody', {'content': {}})
  return {
    'name': name,
    'text': operation.get('description', ''),
    'bodies': [
      (kind, _fields(content['schema'])) for kind, content in body['content'].items()
    ],
    'answers': [
      (status, _type(next(iter(answer.get('content', {'': {}}).values()))), text)
      for status, answer in sorted(operation['responses'].items())
      if (text := answer['description'])
    ],
  }


def _fields(schema: Mapping[str, Any]) -> list[tuple[str, str, str]]:
  """Returns the name, type and meaning of each field."""
  required = schema.get('required', ())
  return [
    (
      name,
      _type({'schema': field}) + ('' if name in required else ', optional'),
      field.get('description', ''),
    )
    for name, field in schema['properties'].items()
  ]


def _type(content: Mapping[str, Any]) -> str:
  """Returns a schema's type as text."""
  schema = content.get('schema', {})
  if '$ref' in schema:
    return schema['$ref'].rpartition('/')[2]
  if 'anyOf' in schema:
    return ' or '.join(_type({'schema': one}) for one in schema['anyOf'])
  if 'items' in schema:
    return f'list of {_type({"schema": schema["items"]})}'
  return schema.get('format', schema.get('type', ''))
