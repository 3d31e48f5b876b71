"""HTML pages in one file, with their style, script and content security policy."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from rahf.drawing import heatmap

# What all pages share lies here.
HERE = 'rahf.drawing'
_PLACE = re.compile(r'{{(\w+)}}')


class Page(NamedTuple):
  """A page in one piece.

  Attributes:
    html: all of it, style and script included.
    policy: its content security policy: style and script by their hashes, and what
      `assemble` was told.
  """

  html: str
  policy: str


def assemble(
  package: str,
  name: str,
  texts: Mapping[str, str],
  *,
  allowed: str = 'img-src data:',
  scripted: bool = True,
) -> Page:
  """Puts <name>.html together with its style and script and what all pages share.

  Args:
    package: which holds the files <name>.html, .css and .js.
    name: of these.
    texts: HTML for the places of the template, by their names; `title` too.
    allowed: by the policy, beside style and script.
    scripted: whether the page has a script.
  """
  style = _code(package, name, 'css')
  script = _code(package, name, 'js') if scripted else ''
  styles, scripts = map(_hash, (style, script))
  policy = f"default-src 'none'; {allowed}; style-src {styles}; script-src {scripts}"
  parts = {**texts, 'style': style, 'script': script, 'policy': policy}
  template = _read(package, name, 'html').replace(
    '{{head}}', _read(HERE, 'head', 'html')
  )
  # One pass, so that what is filled in is not looked at again.
  html = _PLACE.sub(lambda match: parts[match[1]], template)
  return Page(html, policy)


def embed(data: Any) -> str:
  """Returns data as JSON in which no tag can begin, for a script element."""
  return json.dumps(data, allow_nan=False).replace('<', '\\u003c')


def colours() -> list[list[int]]:
  """Red, green, blue and opacity for each of 256 values of a map, from 0 to 1."""
  rgb, alpha = heatmap.heat(np.linspace(0, 1, 256))
  both = np.concatenate([rgb, 255 * alpha[:, None]], axis=1)
  return np.round(both).astype(int).tolist()


def _read(package: str, name: str, end: str) -> str:
  return (resources.files(package) / f'{name}.{end}').read_text('utf-8')


def _code(package: str, name: str, end: str) -> str:
  return _read(HERE, 'common', end) + _read(package, name, end)


def _hash(text: str) -> str:
  digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
  return f"'sha256-{digest}'"
