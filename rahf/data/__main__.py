"""Prepares, checks and describes data sets: python -m rahf.data --help."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from rahf.data import quiet
from rahf.errors import InputError

_RICHHF18K = """\
Join the labels of the RichHF-18K release with images and prompts by uid, and write
TFRecords for the splits train, dev and test.

The release holds labels only. The images and prompts are Pick-a-Pic v1's:
  --images DIR                  its parquet files (about 190 GB; searched recursively)
  --images DIR --prompts TABLE  or image files named <uid>.png (.jpg, .jpeg, .webp) and
                                a table with the columns uid and prompt

Writes OUT/richhf18k/<version>/ with report.json, which names by uid every sample
that was dropped and every label that was masked. Besides the result (about 18 GB
for the whole release) OUT needs as much again while it is being written.
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command; returns the exit status: 0, 1 problems found, 2 a mistake."""
  arguments = _parser().parse_args(argv)
  try:
    quiet.import_tensorflow()
    return arguments.run(arguments)
  except ModuleNotFoundError as error:
    if (error.name or '').startswith('rahf'):
      raise
    print(
      f'error: {error.name} is not installed; preparing data needs the extra '
      '`train`: pip install "rahf[train]"',
      file=sys.stderr,
    )
  except (InputError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
  return 2


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog='python -m rahf.data', description=__doc__)
  commands = parser.add_subparsers(required=True, metavar='COMMAND')
  prepare = commands.add_parser('prepare', help='write a data set as TFRecords')
  names = prepare.add_subparsers(required=True, metavar='DATASET')

  richhf = names.add_parser(
    'richhf18k',
    help='RichHF-18K, from its label files and Pick-a-Pic images',
    description=_RICHHF18K,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  path = pathlib.Path
  richhf.add_argument(
    '--labels', type=path, required=True, help='folder of {train,dev,test}.tfrecord'
  )
  richhf.add_argument(
    '--images', type=path, required=True, help='folder of parquet or image files'
  )
  richhf.add_argument(
    '--prompts',
    type=path,
    metavar='TABLE',
    help='CSV, TSV, JSONL or parquet: uid (or filename) and prompt (or caption)',
  )
  richhf.add_argument('--out', type=path, required=True, help='where to write')
  richhf.add_argument(
    '--overwrite', action='store_true', help='replace what is prepared there'
  )
  richhf.set_defaults(run=_prepare_richhf18k)

  shapes = names.add_parser(
    'shapes',
    help='generated pictures of shapes with exact labels, for tests and first runs',
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  shapes.add_argument('--out', type=path, required=True, help='where to write')
  shapes.add_argument('--image-size', type=int, default=64, help='pixels a side')
  shapes.add_argument('--train', type=int, default=40_000, help='records')
  shapes.add_argument('--dev', type=int, default=500, help='records')
  shapes.add_argument('--test', type=int, default=1_000, help='records')
  shapes.add_argument('--seed', type=int, default=0, help='of the pictures')
  shapes.set_defaults(run=_prepare_shapes)

  verify = commands.add_parser(
    'verify', help='read every record of a prepared directory and list problems'
  )
  verify.add_argument('dir', type=path, help='what prepare wrote')
  verify.set_defaults(run=_verify)

  stats = commands.add_parser(
    'stats',
    help='scores, labels, maps, prompts and images of a prepared directory, as a table '
    'and as pictures',
  )
  stats.add_argument('dir', type=path, help='what prepare wrote')
  stats.add_argument('--split', help='train, dev or test; all by default')
  stats.add_argument(
    '--out',
    type=path,
    metavar='FOLDER',
    help='where to write the pictures (default: `stats` in the prepared directory)',
  )
  stats.set_defaults(run=_stats)
  return parser


def _prepare_richhf18k(arguments: argparse.Namespace) -> int:
  from rahf.data.datasets.richhf18k import prepare_richhf18k

  directory, report = prepare_richhf18k(
    arguments.out,
    labels=arguments.labels,
    images=arguments.images,
    prompts=arguments.prompts,
    overwrite=arguments.overwrite,
  )
  print(f'\n{report.table()}\n')
  for note in report.notes:
    print(f'Note: {note}.')
  print(f'Prepared: {directory}')
  print(f'By uid:   {directory / "report.json"}')
  return 0


def _prepare_shapes(arguments: argparse.Namespace) -> int:
  from rahf.data.datasets.shapes import prepare_shapes

  directory = prepare_shapes(
    arguments.out,
    image_size=arguments.image_size,
    train=arguments.train,
    dev=arguments.dev,
    test=arguments.test,
    seed=arguments.seed,
  )
  print(f'Prepared: {directory}')
  return 0


def _verify(arguments: argparse.Namespace) -> int:
  from rahf.data.verify import verify

  counts, problems = verify(arguments.dir)
  for problem in problems:
    print(problem)
  read = ', '.join(f'{split} {count:,}' for split, count in counts.items())
  print(f'Read {read}: {len(problems) or "no"} problem{"s"[: len(problems) != 1]}.')
  return 1 if problems else 0


def _stats(arguments: argparse.Namespace) -> int:
  from rahf.data import figures, prepared, stats

  facts = stats.collect(arguments.dir, arguments.split)
  print(f'\n{stats.table(facts)}\n')
  folder = arguments.out or prepared.find(arguments.dir)[0] / 'stats'
  print(f'Drawn: {folder}/{", ".join(figures.write(folder, facts))}')
  return 0


if __name__ == '__main__':
  sys.exit(main())
