"""Compares image generators by any scorers, and by their distance from real images.

  python -m rahf.judge --images a=FOLDER b=FOLDER --prompts=TABLE --model SCORER

Methods are in `evaluation/generator_judgement.py` and docs/judging.md.

Writes into --out:
  judge.md     what is printed
  judge.html   the same as a page
  judge.csv    generator, measure, value, low, high, rank
  scores.csv   each image's scores, or why it has none (`reports/score_table.py`)
"""

import argparse
import contextlib
import functools
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from etils import epath

from rahf.data.sources.source import Source, open_source
from rahf.errors import InputError, run_command
from rahf.evaluation import generator_distances, generator_judgement
from rahf.evaluation.generator_judgement import Judgement, Measure
from rahf.evaluation.generator_tally import Tally
from rahf.evaluation.image_features import (
  Extractor,
  clip_features,
  inception_features,
)
from rahf.fileio import atomic_write
from rahf.fileio.named_paths import named_paths
from rahf.fileio.paths import find, is_local, new
from rahf.fileio.staged_folder import staged
from rahf.fileio.validators import argument, whole
from rahf.inference import open_scorer, score_source
from rahf.inference.scorer import Scorer
from rahf.metrics.bootstrap import DRAWS, check_draws
from rahf.reports import judge_tables, score_table
from rahf.runtime import accelerator

_DESCRIPTION = """\
Compares image generators: mean, win rate and rank by every score of RAHF, PickScore or
CLIP, with 95 % intervals, on the prompts that all generators have images of; with
--reference, also CMMD and FID.
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns the exit status: 0, or 2 for a user's mistake."""
  return run_command(_run, _parser().parse_args(argv))


def _run(arguments: argparse.Namespace) -> None:
  """Checks everything that is quick to check, then computes."""
  generators = named_paths(arguments.images, '--images', 'FOLDER')
  scorers = named_paths(arguments.model, '--model', 'SCORER', named_by_path=True)
  out = _check_out(arguments.out)
  extractors = _extractors(arguments)
  for flag in ('prompts', 'reference'):
    if (given := getattr(arguments, flag)) is not None:
      find(given, f'--{flag}')
  sources = {
    name: open_source(path, arguments.prompts or '', flag=f'--images {name}:')
    for name, path in generators.items()
  }
  folders = {name: open_scorer.find(path) for name, path in scorers.items()}
  measures = [
    measure
    for name, folder in folders.items()
    for measure in score_source.measures(
      name, open_scorer.read_description(folder).outputs
    )
  ]
  score_source.check_shared_prompt(sources)
  print(accelerator.start(accelerator.choose()), file=sys.stderr)
  with contextlib.ExitStack() as stack:
    folder = stack.enter_context(staged(epath.Path(out))) if out else None
    if folder:
      folder.mkdir()
    # Everything is opened before the work, so that a damaged file is found now.
    opened = {name: extractor() for name, extractor in extractors.items()}
    models = _load(folders, arguments.batch_size)
    # Each network leaves the devices when its distances are done.
    distances = [
      generator_distances.measure(
        name,
        opened.pop(name),
        arguments.reference,
        generators,
        batch_size=arguments.batch_size * jax.local_device_count(),
      )
      for name in extractors
    ]
    judged = _judge(models, measures, sources, folder, arguments)
    shown = judge_tables.report(judged, distances)
    if folder:
      _write(folder, shown, judge_tables.comma_separated(judged, distances))
  print(judge_tables.markdown(shown), end='')
  if out:
    print(f'\nWritten to {out}')


def _judge(
  scorers: Mapping[str, Scorer],
  measures: Sequence[Measure],
  sources: Mapping[str, Source],
  folder: epath.Path | None,
  arguments: argparse.Namespace,
) -> Judgement:
  """Scores all images; writes scores.csv if there is a folder."""
  tallies = {name: Tally() for name in sources}
  with contextlib.ExitStack() as stack:
    table = None
    if folder:
      table = stack.enter_context(
        score_table.ScoreTable(folder / 'scores.partial', measures)
      )
    for name, source in sources.items():
      images = score_source.score_source(scorers, source, title=f'Score {name}')
      for image in images:
        tallies[name].add(image)
        if table:
          table.add(name, image)
  shared = generator_judgement.shared_prompts(tallies)
  if folder:
    score_table.finish(folder / 'scores.partial', folder / 'scores.csv', shared)
  comparisons = generator_judgement.compare(
    np.stack([tally.means(shared) for tally in tallies.values()]),
    measures,
    draws=arguments.draws,
    seed=arguments.seed,
  )
  notes = [*generator_judgement.tally_notes(tallies, shared), *_linked(sources)]
  return Judgement(tallies, shared, comparisons, arguments.draws, arguments.seed, notes)


def _load(folders: Mapping[str, epath.Path], batch_size: int) -> dict[str, Scorer]:
  devices = jax.local_devices()
  size = batch_size * len(devices)
  return {
    name: open_scorer.load(folder, batch_size=size, devices=devices)
    for name, folder in folders.items()
  }


def _linked(sources: Mapping[str, Source]) -> list[str]:
  return [
    f'{name}: {len(source.linked):,} linked folders were not searched, the first '
    f'{source.linked[0]}'
    for name, source in sources.items()
    if source.linked
  ]


def _write(folder: epath.Path, shown: judge_tables.Report, table: str) -> None:
  from rahf.reports import judge_page

  for name, text in (
    ('judge.md', judge_tables.markdown(shown)),
    ('judge.html', judge_page.render(shown)),
    ('judge.csv', table),
  ):
    # Names of files may have characters that UTF-8 cannot encode.
    atomic_write.write(folder / name, text.encode('utf-8', 'replace'))


def _check_out(given: str | None) -> pathlib.Path | None:
  """Returns the folder to write.

  Raises:
    InputError: it exists or cannot be written, or the page's library is missing.
  """
  if given is None:
    return None
  if not is_local(find(given, '--out')):
    raise InputError(f'--out={given} is not a local folder; copy it there afterwards')
  out = pathlib.Path(os.fspath(new(given, '--out')))
  try:
    import jinja2  # noqa: F401
  except ModuleNotFoundError:
    raise InputError(
      'the page of --out needs jinja2, which is not installed: pip install '
      '"rahf[train]"'
    ) from None
  return out


def _extractors(
  arguments: argparse.Namespace,
) -> dict[str, Callable[[], Extractor]]:
  """Returns how to open the network of each distance that is asked for.

  Raises:
    InputError: there is a network without a reference, or the reverse.
  """
  found = {}
  if arguments.clip is not None:
    path = find(arguments.clip, '--clip')
    found['CMMD'] = functools.partial(clip_features, path)
  if arguments.inception is not None:
    path = find(arguments.inception, '--inception')
    found['FID'] = functools.partial(inception_features, path)
  if found and arguments.reference is None:
    raise InputError('--clip and --inception need --reference=FOLDER, of real images')
  if not found and arguments.reference is not None:
    raise InputError(
      '--reference needs --clip=WEIGHTS for CMMD, --inception=FILE for FID, or both'
    )
  return found


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m rahf.judge',
    description=_DESCRIPTION,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  several = {'action': 'extend', 'nargs': '+', 'required': True}
  add(
    '--images',
    metavar='NAME=FOLDER',
    help='a generator and its images, in a folder or another input of --mode=infer; '
    'give several after one --images, or repeat the flag',
    **several,
  )
  add(
    '--model',
    metavar='SCORER',
    help='a model directory or a CLIP such as PickScore; NAME=SCORER names it; give '
    'several after one --model, or repeat the flag',
    **several,
  )
  add(
    '--prompts',
    metavar='TABLE',
    help='prompts of the images in all folders; without it, text files beside them',
  )
  add('--out', metavar='FOLDER', help='write tables and a page to a new folder')
  add('--reference', metavar='FOLDER', help='real images, for the distances')
  add(
    '--clip',
    metavar='WEIGHTS',
    help="for CMMD; OpenAI's ViT-L/14 at 336 px to compare with published values",
  )
  add(
    '--inception', metavar='FILE', help="for FID; the weights of pytorch-fid's release"
  )
  add(
    '--batch_size',
    type=argument(int, whole(1)),
    default=32,
    help='images per device (default: %(default)s)',
  )
  add(
    '--draws',
    type=argument(int, check_draws),
    default=DRAWS,
    help='of the bootstrap; 0 for no intervals (default: %(default)s)',
  )
  add(
    '--seed',
    type=argument(int, whole(0)),
    default=0,
    help='of the draws (default: %(default)s)',
  )
  return parser


if __name__ == '__main__':
  sys.exit(main())
