"""python -m rahf.data prepare: the arguments of each data set, and what they do."""

import argparse
import pathlib
import re
from typing import Any

from rahf.errors import InputError
from rahf.fileio.validators import argument, real, whole

_RICHHF18K = """\
Join the labels of the RichHF-18K release with images and prompts by uid, and write
TFRecords for the splits train, dev and test.

The release contains labels only. The images and prompts come from Pick-a-Pic v1:
  --images DIR                  its parquet files (about 190 GB; searched recursively)
  --images DIR --prompts TABLE  or image files named <uid>.png (.jpg, .jpeg, .webp), in
                                a folder or a tar archive, and a table with the
                                columns uid and prompt
Instead of --labels and --images:
  --mirror DIR                  parquet files with labels and images, named
                                {train,validation,test}-….parquet

Writes OUT/richhf18k/<version>/ (about 18 GB for the whole release). Its report.json
lists, by uid, every dropped sample and every masked label. If interrupted, run the
same command to continue; unfinished output is kept in
OUT/.richhf18k-<version>.partial.
"""

_ANNOTATED = """\
Consolidate raw annotations of your own images and write TFRecords for the splits
train, dev and test. A line of --annotations is one annotator's answers for one image:

  {"uid": "0001", "annotator": "ann", "scores": {"plausibility": 4, "overall": 3},
   "implausibility_points": [[0.31, 0.6]], "misaligned_words": ["red"]}

Scores are 1 to 5, points are fractions of width and height. A missing field means the
question was not asked; an empty list means that nothing was marked. Points become maps,
a word is misaligned if more than half of the annotators marked it, and scores are
averaged on a scale of 0 to 1. An annotator's "trust" is their weight.

Writes OUT/NAME/<version>/ with report.json, which lists every image that was left out.
"""

_IMAGES = """\
Write images and prompts without labels, on which image generators train, as TFRecords
for the splits train, dev and test. Image files are stored unchanged.

--input is what scoring takes: a folder of images with text files (cat.txt for cat.png)
or --prompts, a .csv, .tsv, .jsonl or .parquet table, a WebDataset .tar, TFRecords, or a
folder or quoted pattern of such files.

Writes OUT/NAME/<version>/ with report.json, which lists every row that was left out.
"""

_POSITIVE = argument(int, whole(1))
_SHARE = argument(float, real(0, 1))


def add_prepare(commands) -> None:
  """Adds the command to the subparsers."""
  prepare = commands.add_parser('prepare', help='write a data set as TFRecords')
  names = prepare.add_subparsers(required=True, metavar='DATASET')
  _add_richhf18k(names)
  _add_shapes(names)
  _add_annotated(names)
  _add_rapidata(names)
  _add_images(names)


def _add_richhf18k(names) -> None:
  richhf = names.add_parser(
    'richhf18k',
    help='RichHF-18K, from its label files and Pick-a-Pic images',
    description=_RICHHF18K,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  path = pathlib.Path
  richhf.add_argument('--labels', type=path, help='folder of {train,dev,test}.tfrecord')
  richhf.add_argument(
    '--images', type=path, help='folder of parquet or image files, or tar archive'
  )
  richhf.add_argument(
    '--mirror', type=path, help='folder of parquet files with labels and images'
  )
  _add_prompts(richhf)
  _add_output(richhf)
  richhf.set_defaults(run=_prepare_richhf18k)


def _add_shapes(names) -> None:
  shapes = names.add_parser(
    'shapes',
    help='generated images of shapes with exact labels, for tests and first runs',
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  shapes.add_argument('--out', type=pathlib.Path, required=True, help='where to write')
  shapes.add_argument('--image-size', type=int, default=64, help='width in pixels')
  shapes.add_argument('--train', type=int, default=40_000, help='number of records')
  shapes.add_argument('--dev', type=int, default=500, help='number of records')
  shapes.add_argument('--test', type=int, default=1_000, help='number of records')
  shapes.add_argument('--seed', type=int, default=0, help='random seed')
  shapes.add_argument(
    '--world', default='full', help="'small' is for small generators of images"
  )
  shapes.set_defaults(run=_prepare_shapes)


def _add_annotated(names) -> None:
  annotated = names.add_parser(
    'annotated',
    help='your own images with raw annotations',
    description=_ANNOTATED,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  _add_name_and_shares(annotated)
  add, path = annotated.add_argument, pathlib.Path
  add('--annotations', type=path, required=True, help='JSON lines')
  add(
    '--images',
    type=path,
    required=True,
    help='folder or tar archive of image files named <uid>.<extension>',
  )
  _add_prompts(annotated, required=True)
  add(
    '--drawn',
    choices=('discs', 'gaussians'),
    default='discs',
    help='how points become maps: discs with a radius of 1/20 of the height, as in the '
    'paper, or Gaussians with a sigma of 1/20 of the shorter side, as in '
    "Rapidata's sets (default: discs)",
  )
  _add_output(annotated)
  annotated.set_defaults(run=_prepare_annotated)


def _add_rapidata(names) -> None:
  rapidata = names.add_parser(
    'rapidata',
    help="Rapidata's rich feedback sets, from their parquet files",
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  _add_name_and_shares(rapidata)
  add, path = rapidata.add_argument, pathlib.Path
  add('--files', type=path, required=True, help='folder of its parquet files')
  add(
    '--threshold',
    type=_SHARE,
    default=0.5,
    help='share of annotators above which a word is misaligned',
  )
  _add_output(rapidata)
  rapidata.set_defaults(run=_prepare_rapidata)


def _add_images(names) -> None:
  images = names.add_parser(
    'images',
    help='your own images and prompts without labels, to train a generator',
    description=_IMAGES,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  _add_name_and_shares(images)
  images.add_argument('--input', required=True, help='images and prompts, see above')
  _add_prompts(images)
  _add_output(images)
  images.set_defaults(run=_prepare_images)


def _name(text: str) -> str:
  """Returns the name of a data set, which becomes a part of the names of its files."""
  if not re.fullmatch(r'\w[\w-]*', text, re.ASCII):
    raise argparse.ArgumentTypeError(
      f'{text!r:.80} is not a name: use letters, digits, _ and -'
    )
  return text


def _add_name_and_shares(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add('--name', type=_name, required=True, help='data set name, for config.data.name')
  share = 'share of the prompts (default: %(default)s)'
  add('--dev', type=_SHARE, default=0.05, help=share)
  add('--test', type=_SHARE, default=0.05, help=share)


def _add_prompts(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
  parser.add_argument(
    '--prompts',
    type=pathlib.Path,
    required=required,
    metavar='TABLE',
    help='CSV, TSV, JSONL or parquet: uid (or file_name) and prompt (or caption)',
  )


def _add_output(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add('--out', type=pathlib.Path, required=True, help='where to write')
  add('--workers', type=_POSITIVE, help='number of threads (default: one per core)')
  add('--overwrite', action='store_true', help='replace an existing data set')


def _prepare_rapidata(arguments: argparse.Namespace) -> int:
  from rahf.data.datasets.rapidata import prepare_rapidata

  return _print_report(*prepare_rapidata(arguments.out, **_options(arguments)))


def _prepare_annotated(arguments: argparse.Namespace) -> int:
  from rahf.data.datasets.annotated import prepare_annotated

  return _print_report(*prepare_annotated(arguments.out, **_options(arguments)))


def _prepare_images(arguments: argparse.Namespace) -> int:
  from rahf.data.datasets.images import prepare_images

  return _print_report(*prepare_images(arguments.out, **_options(arguments)))


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
  """Returns the keyword arguments for the `prepare_…` functions."""
  return {k: v for k, v in vars(arguments).items() if k not in ('run', 'out')}


def _prepare_richhf18k(arguments: argparse.Namespace) -> int:
  options = _options(arguments)
  if mirror := options.pop('mirror'):
    from rahf.data.datasets.richhf18k.mirror import prepare_mirror

    common = {name: options[name] for name in ('workers', 'overwrite')}
    return _print_report(*prepare_mirror(arguments.out, files=mirror, **common))
  if not (arguments.labels and arguments.images):
    raise InputError('give --labels and --images, or --mirror')
  from rahf.data.datasets.richhf18k.builder import prepare_richhf18k

  return _print_report(*prepare_richhf18k(arguments.out, **options))


def _print_report(directory: pathlib.Path, report) -> int:
  print(f'\n{report.table()}\n')
  for note in report.notes:
    print(f'Note: {note}.')
  print(f'Prepared: {directory}')
  print(f'By uid:   {directory / "report.json"}')
  return 0


def _prepare_shapes(arguments: argparse.Namespace) -> int:
  from rahf.data.datasets.shapes.builder import prepare_shapes

  print(f'Prepared: {prepare_shapes(arguments.out, **_options(arguments))}')
  return 0
