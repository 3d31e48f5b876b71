"""What the lines of an import may contain; `transfer` has their format."""

import datetime
from collections.abc import Mapping
from typing import Any

from rahf.annotation.answering import LONGEST_FLAG
from rahf.annotation.people import ROLES
from rahf.annotation.settings import RULES as SETTINGS
from rahf.annotation.tables import ANSWERS, PURPOSES, STATUSES
from rahf.errors import InputError
from rahf.fileio import table_files, text_files, validators
from rahf.fileio.validators import INT32_MAX, Rule

# Exports of pairs write times as dates, which end there.
_LATEST = datetime.datetime(9999, 1, 1, tzinfo=datetime.UTC).timestamp()


def _text(low: int = 0, high: int = INT32_MAX) -> Rule:
  """Text of so many characters, all of which a store can keep."""

  def check(value: Any) -> str | None:
    if not isinstance(value, str):
      return 'must be text'
    if not low <= len(value) <= high:
      return f'must have {low} to {high} characters'
    try:
      text_files.check(value)
      value.encode()
    except ValueError as error:
      return f'cannot be stored: {error}'
    return None

  return check


SECONDS = validators.real(0, INT32_MAX)
_OBJECT = validators.mapping(lambda value: None)
_VERSION = {
  'status': validators.one_of(STATUSES),
  'value': _OBJECT,
  'seconds': SECONDS,
  'created': validators.real(0, _LATEST),
}
# By the kind of a line; what is left out here is not used.
_FIELDS: Mapping[str, Mapping[str, Rule]] = {
  'project': {'format': _text(), 'task': _text()},
  'item': {
    'uid': _text(),
    'prompt': _text(),
    'images': validators.sequence(_OBJECT, '[{"uid": "1"}]'),
  },
  'annotator': {
    'name': _text(),
    'role': validators.one_of(ROLES),
    'rater': validators.optional(validators.whole(1)),
    'active': validators.truth,
  },
  'answer': {
    'key': _text(1, ANSWERS.c.key.type.length),
    'uid': _text(),
    'annotator': _text(),
    'purpose': validators.one_of(PURPOSES),
    'turn': validators.whole(0),
    **_VERSION,
    'flag': _text(0, LONGEST_FLAG),
    'assist': SETTINGS['assist'],
    'revisions': validators.sequence(validators.fields(**_VERSION), '[]'),
  },
}


def check(values: Mapping[str, Any]) -> None:
  """Checks the type and the range of each field of a line.

  Raises:
    InputError: a field is missing or impossible, or the kind of the line is unknown.
  """
  kind = values.get('kind')
  if not isinstance(kind, str) or kind not in _FIELDS:
    raise InputError(f'kind {kind!r:.40} is unknown')
  for name, rule in _FIELDS[kind].items():
    if name not in values:
      raise InputError(f'it has no {name}')
    check_field(name, values[name], rule)


def check_field(name: str, value: Any, rule: Rule) -> None:
  """Raises InputError, with the field's name, if its value does not obey a rule."""
  if problem := rule(value):
    raise InputError(f'{name} = {table_files.shown(value)} {problem}')
