"""User-facing errors, and how commands print them."""

import re
import sys

# What would move the cursor or colour the terminal, line ends and tabs excepted.
_CONTROLS = re.compile(
  '[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]'
)


class InputError(ValueError):
  """What was given cannot be used: a config, a file, an argument.

  The message says what, where and what to do. Commands print it without a traceback;
  any other exception but an OSError is a bug, and its traceback says where.
  """


def fail(message: object, status: int = 2) -> int:
  """Prints an error as commands do and returns their exit status.

  Names in it may be of others' files: their control characters are spelt out.
  """
  text = _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], f'error: {message}')
  print(text, file=sys.stderr, flush=True)
  return status
