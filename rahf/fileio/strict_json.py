"""Parses JSON strictly: no duplicate names, no NaN, no infinite numbers."""

import json
import math
import os
from typing import Any

from etils import epath

from rahf.errors import InputError
from rahf.fileio import lfs_pointer

# Limit for files, which are read as a whole.
MAX_BYTES = 16 * 2**20


def parse(text: str | bytes, *, constants: bool = False) -> Any:
  """Parses JSON.

  Args:
    constants: accept NaN, Infinity and numbers too large for float64 as Python floats,
      for data whose values may never be used.

  Raises:
    ValueError: it is not JSON, or is something that parsers treat differently:
    duplicate
      names in an object, NaN, numbers too large for float64, thousands of levels.
  """
  strict = {'parse_constant': _refuse, 'parse_float': _float, 'parse_int': _int}
  try:
    return json.loads(text, object_pairs_hook=_object, **({} if constants else strict))
  except RecursionError:
    raise ValueError('it is nested too deeply') from None


def read(path: str | os.PathLike) -> Any:
  """Parses a JSON file.

  Raises:
    ValueError: as for `parse`, or it is not UTF-8, larger than MAX_BYTES, or a Git LFS
      pointer.
    OSError: it cannot be read.
  """
  # Reads up to the limit, as devices and pipes do not report their size.
  with epath.Path(path).open('rb') as file:
    data = file.read(MAX_BYTES + 1)
  if len(data) > MAX_BYTES:
    raise ValueError(f'it has more than {MAX_BYTES} bytes')
  lfs_pointer.check(path, data)
  return parse(data.decode())


def read_own(path: epath.Path, remedy: str) -> dict[str, Any]:
  """Returns the object in a JSON file that this project has written.

  Args:
    remedy: what the user should do if it is damaged.

  Raises:
    InputError: it is damaged.
  """
  try:
    found = read(path)
    if not isinstance(found, dict):
      raise ValueError('it is not an object')
  except ValueError as error:
    raise InputError(f'{path} is damaged ({error}); {remedy}') from None
  return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  values = dict(pairs)
  if len(values) != len(pairs):
    names = [name for name, _ in pairs]
    twice = next(name for name in names if names.count(name) > 1)
    raise ValueError(f'{twice[:80]!r} occurs twice')
  return values


def _refuse(name: str) -> None:
  raise ValueError(f'{name} is not a valid JSON number')


def _int(text: str) -> int:
  # What does not fit float64 has at least so many digits; `float` of it fails.
  if len(text) > 308:
    _float(text)
  return int(text)


def _float(text: str) -> float:
  if not math.isfinite(number := float(text)):
    raise ValueError(f'the number {text[:80]} is too large')
  return number
