"""Scores images, and copies the best of each prompt to a new folder.

What `rahf.best choose` and `rahf.improve filter` have in common.
"""

import argparse
import math
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
from etils import epath

from rahf.data.sources.source import Source, open_source
from rahf.errors import InputError
from rahf.fileio import staged_folder, table_rows
from rahf.fileio.paths import find, is_local, new
from rahf.fileio.validators import Rule, positive, real, whole
from rahf.inference import open_scorer
from rahf.inference.output_ranges import Output
from rahf.inference.results_folder import check_apart
from rahf.inference.scorer import Scorer, ScorerDescription
from rahf.learning import best_of_n, best_report, choices_folder, choices_page
from rahf.learning.best_of_n import Candidate, Choice
from rahf.learning.choices_folder import Thumbnails
from rahf.learning.score_candidates import (
  ORIGINAL,
  Scored,
  full_name,
  known_scores,
  score,
)
from rahf.learning.score_expression import Expression, parse
from rahf.runtime import accelerator

_MODEL = re.compile(r'([A-Za-z_]\w*)=(.+)', re.DOTALL)


class Results(NamedTuple):
  """What scoring gave.

  Attributes:
    candidates: all images, in the order of the input.
    thumbnails: of the prompts that contact sheets show.
    truncated: by model, the prompts that were too long for it.
  """

  candidates: list[Candidate]
  thumbnails: Thumbnails
  truncated: dict[str, dict[str, None]]


def choose(arguments: argparse.Namespace) -> int:
  """Scores, chooses and writes; see `choices_folder`.

  Args:
    arguments: of `add_arguments`.

  Returns:
    0; 1 if an image has no scores, no image is chosen, or linked folders were skipped.

  Raises:
    InputError: an argument or the input cannot be used.
  """
  out, folders, models, scores, expression = check(arguments)
  images = os.fspath(local_path(arguments.images, 'IMAGES'))
  check_apart(images, out, ('IMAGES ', '--out='))
  column = arguments.group or ORIGINAL
  source = open_source(images, arguments.prompts, extra=column, flag='IMAGES')
  if arguments.group:
    _check_group(arguments.group, pathlib.Path(arguments.prompts or images))
  with (
    staged_folder.staged(epath.Path(out)) as staged,
    tempfile.TemporaryFile() as file,
  ):
    loaded = _load(folders, arguments.batch_size)
    scored = score(source, loaded, expression, arguments.group)
    results = _collect(scored, Thumbnails(file), arguments.sheet_prompts)
    _check_any(results.candidates, arguments.images)
    choices, minimum = _choose(results.candidates, arguments)
    folder = pathlib.Path(staged)
    folder.mkdir()
    files = choices_folder.copy_images(folder, source, choices)
    source.check_unchanged()
    rest = [one for one in results.candidates if not one.original]
    choices_folder.write_metadata(folder, choices, files)
    choices_folder.write_choices(folder, choices, rest, expression, [*scores], files)
    _write_pictures(
      folder, choices, results.thumbnails, expression.text, arguments.sheet_prompts
    )
    summaries = {n: f'{folders[n]}, {one.summary}' for n, one in models.items()}
    text = best_report.report(choices, expression, scores, summaries)
    notes = best_report.notes(choices, rest, minimum, results.truncated)
    text += '\n' * bool(notes) + ''.join(f'\n- {note}' for note in notes)
    content = f'# Chosen images\n\n{text}\n'
    (folder / choices_folder.REPORT).write_text(content, 'utf-8', 'replace')
  print(f'{text}\n\nWritten to {out}')
  _warn_of_links(source)
  failed = any(one.error for one in results.candidates)
  chosen = any(one.keep for one in choices)
  if not chosen:
    best = max(one.value for one in results.candidates if not one.error)
    print(
      f'No image is chosen: the highest value is {best:.4g}. Delete {out}, and lower '
      '--minimum, or leave it out and give --top_share',
      file=sys.stderr,
    )
  return int(failed or not chosen or bool(source.linked))


class Checked(NamedTuple):
  """What the arguments say, apart from the images.

  Attributes:
    out: the new folder.
    folders, models: of each model by name.
    scores: all that the models give, by name.
    expression: what images are chosen by.
  """

  out: pathlib.Path
  folders: dict[str, epath.Path]
  models: dict[str, ScorerDescription]
  scores: dict[str, Output]
  expression: Expression


def check(arguments: argparse.Namespace) -> Checked:
  """Checks the arguments of `choose`, without reading images.

  Raises:
    InputError: one of them cannot be used.
  """
  out = new_path(arguments.out)
  for name, rule in (
    ('keep', whole(1)),
    ('batch_size', whole(1)),
    ('sheet_prompts', whole(0)),
    ('minimum', real(-math.inf, sys.float_info.max)),
    ('top_share', positive(1)),
  ):
    check_flag(name, getattr(arguments, name), rule)
  folders = {n: open_scorer.find(path) for n, path in _models(arguments.model).items()}
  models = {n: open_scorer.read_description(path) for n, path in folders.items()}
  scores = known_scores(models)
  expression = parse(_expression(arguments.by, models), scores)
  return Checked(out, folders, models, scores, expression)


def _choose(
  candidates: Sequence[Candidate], arguments: argparse.Namespace
) -> tuple[list[Choice], float]:
  """Returns the choices of each prompt, and the minimum of their values."""
  minimum = arguments.minimum
  choices = best_of_n.choose(candidates, keep=arguments.keep, minimum=minimum)
  if arguments.top_share < 1:
    minimum = best_of_n.share_minimum(choices, arguments.top_share)
    choices = best_of_n.choose(candidates, keep=arguments.keep, minimum=minimum)
  return choices, minimum


def _write_pictures(
  folder: pathlib.Path,
  choices: Sequence[Choice],
  thumbnails: Thumbnails,
  by: str,
  shown: int,
) -> None:
  """Writes the page and the contact sheets, of the first prompts."""
  page = choices_page.render(choices, thumbnails, by, shown)
  (folder / choices_folder.PAGE).write_text(page, 'utf-8', 'replace')
  choices_folder.write_sheets(folder, choices[:shown], thumbnails)


def _load(folders: Mapping[str, epath.Path], batch_size: int) -> dict[str, Scorer]:
  """Loads models on all devices of this process."""
  accelerator.start(accelerator.choose())
  devices = jax.local_devices()
  batch_size *= len(devices)
  return {
    name: open_scorer.load(path, batch_size=batch_size, devices=devices)
    for name, path in folders.items()
  }


def _collect(
  scored: Iterable[Scored], thumbnails: Thumbnails, sheet_prompts: int
) -> Results:
  """Keeps candidates, and the thumbnails of the first prompts."""
  results = Results([], thumbnails, {})
  shown: set[str] = set()
  for one, picture, truncated in scored:
    results.candidates.append(one)
    if one.original and len(shown) < sheet_prompts:
      shown.add(one.original)
    if one.original in shown:
      thumbnails.add(one.position, picture)
    for name in truncated:
      results.truncated.setdefault(name, {})[one.original] = None
  return results


def _check_any(candidates: Sequence[Candidate], images: str) -> None:
  """Raises InputError if no image has scores."""
  if all(one.error for one in candidates):
    first = candidates[0]
    raise InputError(
      f'IMAGES {images}: none of the {len(candidates):,} images has scores; the first '
      f'is {first.uid}: {first.error}'
    )


def _warn_of_links(source: Source) -> None:
  if source.linked:
    print(
      f'Warning: skipped {len(source.linked):,} linked folders, the first '
      f'{source.linked[0]}; to use their images, give the target as IMAGES',
      file=sys.stderr,
    )


def _check_group(column: str, table: pathlib.Path) -> None:
  """Raises InputError if a table lacks the column --group, or has it always empty."""
  table = table.expanduser()
  if table.suffix.lower() not in table_rows.SUFFIXES or not table.is_file():
    return
  if all(value is None for _, (value,) in table_rows.rows(table, (), (column,))):
    raise InputError(
      f'--group={column}: no row of {table} has such a column; it has '
      f'{", ".join(map(str, table_rows.columns(table))):.300}'
    )


def _models(given: Sequence[str]) -> dict[str, str]:
  """Returns the paths of models by name, '' for a single one without a name."""
  found: dict[str, str] = {}
  for text in given:
    named = _MODEL.fullmatch(text)
    name, path = named.groups() if named else ('', text)
    if not name and len(given) > 1:
      raise InputError(
        f'--model={text}: of several models, each needs a name: --model=NAME={text}'
      )
    if name in found:
      raise InputError(f'--model={text}: another model has the name {name}, too')
    found[name] = path
  return found


def _expression(by: str | None, models: Mapping[str, ScorerDescription]) -> str:
  """Returns --by, or the main score of a single model."""
  if by is not None:
    return by
  if len(models) > 1:
    raise InputError(
      f'--by is missing; give one of {", ".join(known_scores(models))}, or a weighted '
      'sum of them'
    )
  ((name, model),) = models.items()
  return full_name(name, model.outputs.main)


def new_path(path: str) -> pathlib.Path:
  """Returns a local path that does not exist yet, given as --out."""
  local_path(path, '--out')
  return pathlib.Path(os.fspath(new(path, '--out')))


def local_path(path: str, name: str) -> pathlib.Path:
  """Returns a path that must not be in a bucket; `name` is for errors."""
  found = find(path, name)
  if not is_local(found):
    raise InputError(
      f'{name} = {path} is not a local path; mount the bucket (gcsfuse, s3fs) and give '
      'the path in it'
    )
  return pathlib.Path(os.fspath(found))


def check_flag(name: str, value: float, rule: Rule) -> None:
  """Raises InputError if a flag has a value that a rule forbids."""
  if problem := rule(value):
    raise InputError(f'--{name}={value} {problem}')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds what `choose` takes, except for `images` and `prompts`."""
  add = parser.add_argument
  add(
    '--model',
    action='append',
    required=True,
    metavar='[NAME=]DIR',
    help='a model directory or a CLIP such as PickScore; give several with names',
  )
  add(
    '--by',
    metavar='EXPRESSION',
    help='a score, or a weighted sum such as 0.7*alignment+0.3*plausibility; of named '
    "models NAME.score (default: a single model's main score)",
  )
  add('--out', required=True, metavar='FOLDER', help='a new folder')
  add('--keep', type=int, default=1, help='images of each prompt (default: 1)')
  add(
    '--minimum',
    type=float,
    default=-math.inf,
    metavar='VALUE',
    help='choose no image of lower value',
  )
  add(
    '--top_share',
    type=float,
    default=1.0,
    metavar='SHARE',
    help='of the images so chosen, keep only this share, those of the highest value '
    '(default: %(default)s)',
  )
  add(
    '--group',
    default='',
    metavar='COLUMN',
    help='column of the original prompts, whose images compete (default: '
    f'{ORIGINAL} if there is one, else prompt)',
  )
  add(
    '--sheet_prompts',
    type=int,
    default=100,
    metavar='N',
    help='how many prompts, the first, page and contact sheets show '
    '(default: %(default)s)',
  )
  add(
    '--batch_size',
    type=int,
    default=32,
    help='images per device in a batch (default: %(default)s)',
  )
