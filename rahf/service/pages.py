"""The pages of the service: one to score an image, and the reference."""

import html
from collections.abc import Mapping
from typing import Any

from rahf.drawing import html_page
from rahf.inference import output_ranges
from rahf.inference.model_directory import Description
from rahf.service import messages
from rahf.version import __version__

ALLOWED = "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'"


def home(description: Description, limit: int) -> html_page.Page:
  """Returns the page where a dropped image is scored.

  Args:
    description: describes the model.
    limit: the most bytes in a request.
  """
  trained = ', '.join(description.data)
  about = f' on {trained}' if trained else ''
  texts = {
    'title': 'RAHF: score an image',
    'summary': html.escape(
      f'Model trained for {description.step:,} steps{about}; rahf {__version__}.'
    ),
    'limit': f'{limit / 2**20:g}',
    'longest': str(messages.LONGEST_PROMPT),
    'score_range': str(output_ranges.SCORE),
    'map_range': str(output_ranges.MAP),
    'keyword_range': str(output_ranges.KEYWORD),
    'data': html_page.embed(
      {
        'colours': html_page.colours(),
        'scores': output_ranges.SCORES,
        'maps': output_ranges.MAPS,
        'limit': limit,
      }
    ),
  }
  return html_page.assemble('rahf.service', 'service', texts, allowed=ALLOWED)


def reference(openapi: Mapping[str, Any]) -> html_page.Page:
  """Returns the OpenAPI description as a page without scripts."""
  operations = (
    _operation(f'{method.upper()} {path}', operation)
    for path, methods in openapi['paths'].items()
    for method, operation in methods.items()
  )
  schemas = openapi['components']['schemas']
  texts = {
    'title': html.escape(f'{openapi["info"]["title"]} {openapi["info"]["version"]}'),
    'summary': html.escape(openapi['info']['description']),
    'operations': ''.join(operations),
    'messages': ''.join(_message(name, schema) for name, schema in schemas.items()),
  }
  return html_page.assemble('rahf.service', 'reference', texts, scripted=False)


def _operation(name: str, operation: Mapping[str, Any]) -> str:
  body = operation.get('requestBody', {'content': {}})
  asked = ''.join(
    f'<h3>{html.escape(kind)}</h3>{_fields(content["schema"])}'
    for kind, content in body['content'].items()
  )
  answers = [
    (status, _type(next(iter(answer.get('content', {'': {}}).values()))), text)
    for status, answer in sorted(operation['responses'].items())
    if (text := answer['description'])
  ]
  text = html.escape(operation.get('description', ''))
  heading = f'<h2>{html.escape(name)}</h2><p>{text}</p>'
  return f'{heading}{asked}<h3>Answers</h3>{_table(answers)}'


def _message(name: str, schema: Mapping[str, Any]) -> str:
  name, text = html.escape(name), html.escape(schema.get('description', ''))
  return f'<h2>{name}</h2><p>{text}</p>{_fields(schema)}'


def _fields(schema: Mapping[str, Any]) -> str:
  required = schema.get('required', ())
  return _table(
    [
      (
        name,
        _type({'schema': field}) + ('' if name in required else ', optional'),
        field.get('description', ''),
      )
      for name, field in schema['properties'].items()
    ]
  )


def _type(content: Mapping[str, Any]) -> str:
  """Returns a schema's type in words."""
  schema = content.get('schema', {})
  if '$ref' in schema:
    return schema['$ref'].rpartition('/')[2]
  if 'anyOf' in schema:
    return ' or '.join(_type({'schema': one}) for one in schema['anyOf'])
  if 'items' in schema:
    return f'list of {_type({"schema": schema["items"]})}'
  return schema.get('format', schema.get('type', ''))


def _table(rows: list[tuple[str, str, str]]) -> str:
  cells = (''.join(f'<td>{html.escape(cell)}</td>' for cell in row) for row in rows)
  return f'<table>{"".join(f"<tr>{row}</tr>" for row in cells)}</table>'
