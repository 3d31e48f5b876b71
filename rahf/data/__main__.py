"""Prepares, verifies and summarises data sets: python -m rahf.data --help."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from rahf.data import quiet_tensorflow
from rahf.data.attributes import arguments as attribute_arguments
from rahf.data.prepare_command import add_prepare
from rahf.errors import InputError, fail


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command and returns its exit status.

  0 is success, 1 means that `verify` found problems, 2 is an error.
  """
  arguments = _parser().parse_args(argv)
  try:
    quiet_tensorflow.import_tensorflow()
    return arguments.run(arguments)
  except ModuleNotFoundError as error:
    if (error.name or '').startswith('rahf'):
      raise
    return fail(
      f'{error.name} is not installed; preparing data needs the extra `train`: pip '
      'install "rahf[train]"'
    )
  except (InputError, OSError) as error:
    return fail(error)
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
  return 2


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog='python -m rahf.data', description=__doc__)
  commands = parser.add_subparsers(required=True, metavar='COMMAND')
  add_prepare(commands)

  path = pathlib.Path
  verify = commands.add_parser(
    'verify', help='read every record of a prepared directory and list problems'
  )
  verify.add_argument('dir', type=path, help='prepared directory')
  verify.set_defaults(run=_verify)

  stats = commands.add_parser(
    'stats',
    help='summarise scores, labels, maps, prompts and images of a prepared directory '
    'in a table and charts',
  )
  stats.add_argument('dir', type=path, help='prepared directory')
  stats.add_argument('--split', help='train, dev or test (default: all)')
  stats.add_argument(
    '--out',
    type=path,
    metavar='FOLDER',
    help='where to write the charts (default: `stats` in the prepared directory)',
  )
  stats.set_defaults(run=_stats)
  _add_pairs(commands)
  attribute_arguments.add_attributes(commands).set_defaults(run=_attributes)
  attribute_arguments.add_sample(commands).set_defaults(run=_sample)
  return parser


def _attributes(arguments: argparse.Namespace) -> int:
  # A model may answer, which no other command needs.
  from rahf.inference.attributes_command import answer

  return answer(arguments)


def _sample(arguments: argparse.Namespace) -> int:
  from rahf.data.attributes.sample_command import sample

  return sample(arguments)


def _add_pairs(commands) -> None:
  pairs = commands.add_parser(
    'pairs', help='count the preference pairs of Pick-a-Pic v1, without reading images'
  )
  pairs.add_argument('folder', type=pathlib.Path, help='folder of its parquet files')
  pairs.add_argument('--split', help='count one split only (default: all found)')

  def run(arguments: argparse.Namespace) -> int:
    from rahf.data.preferences.stats import collect, table

    counts, notes = collect(arguments.folder, arguments.split)
    print(f'\n{table(counts)}\n')
    for note in notes:
      print(f'Note: {note}.')
    return 0

  pairs.set_defaults(run=run)


def _verify(arguments: argparse.Namespace) -> int:
  from rahf.data.quality.verify import verify

  counts, problems = verify(arguments.dir)
  for problem in problems:
    print(problem)
  read = ', '.join(f'{split} {count:,}' for split, count in counts.items())
  print(f'Read {read}: {len(problems) or "no"} problem{"s"[: len(problems) != 1]}.')
  return 1 if problems else 0


def _stats(arguments: argparse.Namespace) -> int:
  from rahf.data.quality.summary import summarise

  summarise(arguments.dir, arguments.split, arguments.out)
  return 0


if __name__ == '__main__':
  sys.exit(main())
