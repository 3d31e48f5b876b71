"""User-facing errors and how commands print them."""

import re
import sys

# Control characters that could move the cursor or colour the terminal; tabs and line
# ends are allowed.
_CONTROLS = re.compile(
  '[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]'
)


class InputError(ValueError):
  """Input that cannot be used: a config, a file, an argument.

  The message says what is wrong, where, and what to do. Commands print it without a
  traceback; any other exception except OSError is a bug and shows its traceback.
  """


def fail(message: object, status: int = 2) -> int:
  """Prints an error to stderr and returns the exit status.

  Control characters, which file names may contain, are escaped.
  """
  text = _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], f'error: {message}')
  print(text, file=sys.stderr, flush=True)
  return status
