"""Collects human annotations of images, in the browser or through Rapidata.

python -m rahf.annotate --help
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rahf.annotation import rapidata_command, web_command
from rahf.annotation.rapidata_command import open_client
from rahf.errors import run_command


def main(
  argv: Sequence[str] | None = None, connect: Callable[[], Any] = open_client
) -> int:
  """Runs the command; returns the exit status: 0, or 2 for a user's mistake."""
  arguments = _parser(connect).parse_args(argv)
  return run_command(arguments.run, arguments)


def _parser(connect: Callable[[], Any] = open_client) -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m rahf.annotate',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  commands = parser.add_subparsers(required=True, metavar='COMMAND')
  web_command.add_commands(commands)
  rapidata_command.add_command(commands, connect)
  return parser


if __name__ == '__main__':
  sys.exit(main())
