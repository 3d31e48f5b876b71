"""Renders self-contained HTML pages with style, script and content security policy.

Templates are Jinja's, with autoescaping. They include `head.html`, and get `style`,
`script` and `policy` in addition to their own values.
"""

import base64
import functools
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup

from rahf.drawing import heatmap

# Holds the files that all pages share.
SHARED = 'rahf.drawing'
# A package, and the name of a file in it.
File = tuple[str, str]


class Page(NamedTuple):
  """A self-contained page.

  Attributes:
    html: the whole page, including style and script.
    policy: its content security policy: style and script by hash, and the `allowed` of
      `render`.
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
  """Renders a template with its style and script, and those of maps.

  Args:
    package: contains the files <name>.html, .css and .js.
    name: the stem of these files.
    allowed: policy directives in addition to style and script.
    scripted: whether the page has a script.
    values: the variables of the template, including `title`.
  """
  scripts = [(SHARED, 'common.js'), (SHARED, 'maps.js'), (package, f'{name}.js')]
  return compose(
    (package, f'{name}.html'),
    styles=[(SHARED, 'common.css'), (package, f'{name}.css')],
    scripts=scripts if scripted else [],
    allowed=allowed,
    **values,
  )


def compose(
  template: File,
  *,
  styles: Sequence[File],
  scripts: Sequence[File],
  allowed: str,
  **values: Any,
) -> Page:
  """Renders a template with the given files as its style and script.

  Args:
    template: it may include others of its package, and head.html.
    styles, scripts: joined in this order.
    allowed: policy directives in addition to style and script.
    values: the variables of the template, including `title`.
  """
  package, name = template
  style, script = (''.join(_read(*file) for file in part) for part in (styles, scripts))
  policy = (
    f"default-src 'none'; {allowed}; style-src {_hash(style)}; script-src "
    f'{_hash(script)}'
  )
  html = (
    _environment(package)
    .get_template(name)
    .render(style=Markup(style), script=Markup(script), policy=policy, **values)
  )
  return Page(html, policy)


def embed(data: Any) -> Markup:
  """Returns data as JSON without `<`, safe inside a script element."""
  return Markup(json.dumps(data, allow_nan=False).replace('<', '\\u003c'))


def colours() -> list[list[int]]:
  """Returns red, green, blue and opacity for 256 map values from 0 to 1."""
  rgb, alpha = heatmap.heat(np.linspace(0, 1, 256))
  both = np.concatenate([rgb, 255 * alpha[:, None]], axis=1)
  return np.round(both).astype(int).tolist()


@functools.cache
def _environment(package: str) -> jinja2.Environment:
  """Returns what compiles a package's templates, each once."""
  return jinja2.Environment(
    loader=jinja2.FunctionLoader(
      lambda file: _read(SHARED if file == 'head.html' else package, file)
    ),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
  )


@functools.cache
def _read(package: str, file: str) -> str:
  return (resources.files(package) / file).read_text('utf-8')


def _hash(text: str) -> str:
  digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
  return f"'sha256-{digest}'"
