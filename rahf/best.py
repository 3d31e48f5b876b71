"""Best of N: makes many images of a prompt, and keeps the best by any scorer.

python -m rahf.best prompts PROMPTS.txt --out=prompts.csv
python -m rahf.best choose prompts.csv --model=DIR --out=best
"""

import argparse
import sys
from collections.abc import Sequence

from rahf.data.sources.source import KINDS
from rahf.errors import InputError, run_command
from rahf.fileio import atomic_write
from rahf.fileio.validators import whole
from rahf.learning import choosing, prompt_templates
from rahf.learning.choosing import check_flag, local_path, new_path

_DESCRIPTION = """\
Best of N: makes many images of each prompt, and keeps the best by any scorer.

prompts writes a table of images to generate: each prompt, by each template and seed.
choose scores images and copies the best of each prompt to a new folder. An image is
scored against its original prompt, whatever template it was made by.
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command.

  Returns:
    0; 1 if an image has no scores, a prompt has no chosen image, or linked folders
    were skipped; 2 for a user's mistake.
  """
  arguments = _parser().parse_args(argv)
  return run_command(arguments.run, arguments)


def _write_prompts(arguments: argparse.Namespace) -> int:
  """Writes the table of images to generate."""
  out = new_path(arguments.out)
  if out.suffix != '.csv':
    raise InputError(f'--out={out} is not the name of a table; end it in .csv')
  check_flag('seeds', arguments.seeds, whole(1, 1_000_000))
  given = prompt_templates.DEFAULT
  if arguments.templates is not None:
    given = local_path(arguments.templates, '--templates')
  templates = prompt_templates.read_templates(given)
  prompts = prompt_templates.read_prompts(local_path(arguments.prompts, 'PROMPTS'))
  rows = prompt_templates.expand(prompts, templates, arguments.seeds)
  with (
    atomic_write.temp_then_rename(out) as partial,
    open(partial, 'w', encoding='utf-8', newline='') as file,
  ):
    prompt_templates.write_table(file, rows)
  count = len(prompts) * len(templates) * arguments.seeds
  print(
    f'Written to {out}: {count:,} images to generate, from {len(prompts):,} prompts, '
    f'{len(templates):,} templates and {arguments.seeds:,} seeds. Write each image to '
    f'its file_name in {out.parent}'
  )
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m rahf.best',
    description=_DESCRIPTION,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  commands = parser.add_subparsers(required=True, metavar='prompts | choose')
  _add_prompts(commands.add_parser('prompts', help='write a table for any generator'))
  _add_choose(commands.add_parser('choose', help='score images and keep the best'))
  return parser


def _add_prompts(parser: argparse.ArgumentParser) -> None:
  parser.set_defaults(run=_write_prompts)
  add = parser.add_argument
  add('prompts', metavar='PROMPTS', help='a text file, one prompt a line')
  add('--out', required=True, metavar='CSV', help='a new table')
  add(
    '--templates',
    metavar='FILE',
    help=f'one a line, with {prompt_templates.PLACE} in it (default: 20 of our own)',
  )
  add('--seeds', type=int, default=5, help='of each template (default: %(default)s)')


def _add_choose(parser: argparse.ArgumentParser) -> None:
  parser.set_defaults(run=choosing.choose)
  add = parser.add_argument
  add('images', metavar='IMAGES', help=KINDS)
  add('--prompts', default='', metavar='TABLE', help='for a folder of images')
  choosing.add_arguments(parser)


if __name__ == '__main__':
  sys.exit(main())
