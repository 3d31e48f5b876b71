"""Reads JSON written by others, strictly."""

import json
import math
import os
from typing import Any

from etils import epath

from rahf.errors import InputError
from rahf.fileio import lfs_pointer

# Bytes of a file that is read whole: a description, an index.
MOST = 16 * 2**20


def parse(text: str | bytes, *, constants: bool = False) -> Any:
  """Returns what JSON says.

  Args:
    constants: take NaN, Infinity and numbers that are too large for float64 as Python's
      floats, where nobody may ask for the value that holds them.

  Raises:
    ValueError: it is not JSON, or is what readers take in different ways: a name twice
      in an object, NaN, a number that is not one of float64, thousands of levels.
  """
  strict = {'parse_constant': _refuse, 'parse_float': _float, 'parse_int': _int}
  try:
    return json.loads(text, object_pairs_hook=_object, **({} if constants else strict))
  except RecursionError:
    raise ValueError('it has too many levels') from None


def read(path: str | os.PathLike) -> Any:
  """Returns what a file says.

  Raises:
    ValueError: as `parse`, or it is no UTF-8, larger than MOST, or a Git LFS pointer.
    OSError: it cannot be read.
  """
  # Not by its size, which that of a device or a pipe is not.
  with epath.Path(path).open('rb') as file:
    data = file.read(MOST + 1)
  if len(data) > MOST:
    raise ValueError(f'it has more than {MOST} bytes')
  lfs_pointer.check(path, data)
  return parse(data.decode())


def read_own(path: epath.Path, remedy: str) -> dict[str, Any]:
  """Returns the object in a file that this project wrote.

  Raises:
    InputError: it is damaged; says what to do.
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
    raise ValueError(f'{twice[:80]!r} is there twice')
  return values


def _refuse(name: str) -> None:
  raise ValueError(f'{name} is not a number of JSON')


def _int(text: str) -> int:
  # What does not fit float64 has at least so many digits; `float` of it fails.
  if len(text) > 308:
    _float(text)
  return int(text)


def _float(text: str) -> float:
  if not math.isfinite(number := float(text)):
    raise ValueError(f'{text[:80]} is too large a number')
  return number
