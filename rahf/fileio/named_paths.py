"""Reads NAME=PATH, in which names become names of files and columns."""

import pathlib
import re
from collections.abc import Iterable

from rahf.errors import InputError

_NAME = re.compile(r'[\w.+-]+')


def named_paths(
  given: Iterable[str], flag: str, what: str, *, named_by_path: bool = False
) -> dict[str, str]:
  """Returns paths by name from NAME=PATH.

  Args:
    flag: that gave them, or the name of a positional argument; for errors.
    what: the path is of, for errors.
    named_by_path: whether NAME= may be left out; then the path's last part is the name.

  Raises:
    InputError: a name is missing, cannot be used, or stands twice.
  """
  found: dict[str, str] = {}
  advice = f'give {flag} ' if flag.startswith('-') else 'give '
  advice += f'NAME={what}'
  for text in given:
    name, equals, path = text.partition('=')
    if named_by_path and not (equals and '/' not in name):
      name, path = pathlib.Path(text).expanduser().resolve().name, text
    if not path:
      raise InputError(f'{flag} {text!r} has no path; {advice}')
    if not _NAME.fullmatch(name):
      raise InputError(
        f'{flag} {text!r}: the name {name!r} must consist of letters, digits and . _ + '
        f'-; {advice}'
      )
    if name in found:
      raise InputError(
        f'{flag}: {name} stands twice, for {found[name]} and {path}; {advice} with '
        'another name'
      )
    found[name] = path
  return found
