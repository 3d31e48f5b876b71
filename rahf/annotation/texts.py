"""What pages say, by language: `texts.json` has the texts of each under its code."""

import functools
import json
import re
from importlib import resources

ENGLISH = 'en'


@functools.cache
def all_texts() -> dict[str, dict[str, str]]:
  """Returns the texts by language and name."""
  path = resources.files('rahf.annotation') / 'texts.json'
  return json.loads(path.read_text('utf-8'))


def language_of(wanted: str, accepted: str) -> str:
  """Returns the language of a page.

  Args:
    wanted: code that the address names; '' for none.
    accepted: the browser's Accept-Language, best first.
  """
  codes = [wanted, *re.findall(r'[A-Za-z]{2,3}', re.sub(r';[^,]*', '', accepted))]
  return next((c.lower() for c in codes if c.lower() in all_texts()), ENGLISH)
