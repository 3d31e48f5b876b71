"""User-facing errors and how commands print them."""

import io
import re
import sys
from collections.abc import Callable
from typing import Any

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
  print(f'error: {printable(message)}', file=sys.stderr, flush=True)
  return status


def run_command(run: Callable[[Any], int | None], arguments: Any) -> int:
  """Runs a command with its arguments and returns the exit status.

  That is what `run` returns, 0 for None; 2, after a message, for a user's mistake or an
  interruption.
  """
  for stream in (sys.stdout, sys.stderr):
    # A terminal or pipe may have an encoding without some of the characters.
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='replace')
  try:
    return run(arguments) or 0
  except (InputError, OSError) as error:
    return fail(error)
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
    return 2


def printable(message: object) -> str:
  """Returns text with its control characters escaped."""
  return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], str(message))
