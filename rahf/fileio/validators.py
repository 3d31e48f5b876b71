"""Validators of settings: each returns the problem with a value, or None.

A problem completes 'config.x = value …', as in 'must be at least 1'.
"""

import argparse
import difflib
import math
import numbers
import re
from collections.abc import Callable, Mapping
from typing import Any

Rule = Callable[[Any], str | None]
# Devices use 32-bit integers.
INT32_MAX = 2**31 - 1


def whole(low: int, high: int = INT32_MAX) -> Rule:
  """An integer from `low` to `high`."""

  def check(value: Any) -> str | None:
    if not isinstance(value, int) or isinstance(value, bool):
      return 'must be a whole number'
    return _limit(value, low, high)

  return check


def real(low: float, high: float = math.inf) -> Rule:
  """A number from `low` to `high`; not NaN."""

  def check(value: Any) -> str | None:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
      return 'must be a number'
    try:
      value = float(value)
    except OverflowError:
      return 'is too large'
    return 'must be a number' if math.isnan(value) else _limit(value, low, high)

  return check


def positive(high: float = math.inf) -> Rule:
  """A number above 0, up to `high`."""
  number = real(-math.inf, high)
  return lambda value: number(value) or (None if value > 0 else 'must be above 0')


def argument(convert: Callable[[str], Any], rule: Rule) -> Callable[[str], Any]:
  """Returns a parser, for argparse, of an argument that must obey a rule."""

  def parse(text: str) -> Any:
    value = convert(text)
    if problem := rule(value):
      raise argparse.ArgumentTypeError(f'{text} {problem}')
    return value

  # In messages about what cannot be converted.
  parse.__name__ = convert.__name__
  return parse


def optional(rule: Rule) -> Rule:
  """None, or a valid value of another rule."""
  return lambda value: None if value is None else rule(value)


def one_of(choices: tuple[str, ...]) -> Rule:
  """One of the given strings."""

  def check(value: Any) -> str | None:
    if value in choices:
      return None
    close = difflib.get_close_matches(str(value), choices, 1)
    hint = f'; did you mean {close[0]!r}?' if close else ''
    names = ', '.join(choice or "''" for choice in choices)
    return f'is not one of {names}{hint}'

  return check


def sequence(rule: Rule, example: str, least: int = 0) -> Rule:
  """A sequence of at least `least` valid values of another rule."""

  def check(value: Any) -> str | None:
    if not isinstance(value, tuple | list) or len(value) < least:
      return f'must be a sequence such as {example}'
    problems = (f'has {v!r:.80}, which {p}' for v in value if (p := rule(v)))
    return next((f'{p}; give a sequence such as {example}' for p in problems), None)

  return check


def pair(first: Rule, second: Rule) -> Rule:
  """A pair of values, each with its own rule."""

  def check(value: Any) -> str | None:
    if not isinstance(value, tuple | list) or len(value) != 2:
      return 'is not a pair'
    return first(value[0]) or second(value[1])

  return check


def mapping(rule: Rule) -> Rule:
  """A mapping whose values are valid for another rule."""

  def check(value: Any) -> str | None:
    if not isinstance(value, Mapping):
      return 'must be an object'
    return next((f'{k!r:.80}: {p}' for k, v in value.items() if (p := rule(v))), None)

  return check


def fields(**named: Rule) -> Rule:
  """A mapping with exactly these names, each with its own rule."""

  def check(value: Any) -> str | None:
    if not isinstance(value, Mapping) or value.keys() != named.keys():
      return f'must be an object of {", ".join(named)}'
    return next((f'{k}: {p}' for k in named if (p := named[k](value[k]))), None)

  return check


def truth(value: Any) -> str | None:
  """True or False."""
  return None if isinstance(value, bool) else 'must be True or False'


def text(value: Any) -> str | None:
  """Text, such as a path."""
  if not isinstance(value, str):
    return 'must be text'
  return 'contains a NUL character, which paths cannot' if '\0' in value else None


def pattern(value: Any) -> str | None:
  """A regular expression."""
  try:
    re.compile(value)
  except (re.error, TypeError, RecursionError, OverflowError) as error:
    return f'is not a regular expression ({error})'
  return (
    None if isinstance(value, str) else 'must be a string with a regular expression'
  )


def _limit(value: float, low: float, high: float) -> str | None:
  if value < low:
    return f'must be at least {low}'
  return f'must be at most {high}' if value > high else None
