"""HTML pages in one file, with their style, script and content security policy.

Templates are Jinja's, with everything that is filled in escaped. They include
`head.html`, and get `style`, `script` and `policy` beside their own values.
"""

import base64
import hashlib
import json
from importlib import resources
from typing import Any, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup

from rahf.drawing import heatmap

# The folder of what all pages share.
HERE = 'rahf.drawing'


class Page(NamedTuple):
  """A page in one piece.

  Attributes:
    html: all of it, style and script included.
    policy: its content security policy: style and script by their hashes, and what
      `render` was told.
  """

  html: str
  policy: str


def render(
  package: str,
  name: str,
  *,
  allowed: str = 'img-src data:',
  scripted: bool = True,
  **values: Any,
) -> Page:
  """Fills in a template, and puts its style and script inside.

  Args:
    package: which holds the files <name>.html, .css and .js.
    name: of these.
    allowed: by the policy, beside style and script.
    scripted: whether the page has a script.
    values: what the template names; `title` too.
  """
  style = _code(package, name, 'css')
  script = _code(package, name, 'js') if scripted else ''
  styles, scripts = map(_hash, (style, script))
  policy = f"default-src 'none'; {allowed}; style-src {styles}; script-src {scripts}"
  environment = jinja2.Environment(
    loader=jinja2.FunctionLoader(
      lambda file: _read(HERE if file == 'head.html' else package, file)
    ),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
  )
  html = environment.get_template(f'{name}.html').render(
    style=Markup(style), script=Markup(script), policy=policy, **values
  )
  return Page(html, policy)


def embed(data: Any) -> Markup:
  """Returns data as JSON in which no tag can begin, for a script element."""
  return Markup(json.dumps(data, allow_nan=False).replace('<', '\\u003c'))


def colours() -> list[list[int]]:
  """Red, green, blue and opacity for each of 256 values of a map, from 0 to 1."""
  rgb, alpha = heatmap.heat(np.linspace(0, 1, 256))
  both = np.concatenate([rgb, 255 * alpha[:, None]], axis=1)
  return np.round(both).astype(int).tolist()


def _read(package: str, file: str) -> str:
  return (resources.files(package) / file).read_text('utf-8')


def _code(package: str, name: str, end: str) -> str:
  return _read(HERE, f'common.{end}') + _read(package, f'{name}.{end}')


def _hash(text: str) -> str:
  digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
  return f"'sha256-{digest}'"
