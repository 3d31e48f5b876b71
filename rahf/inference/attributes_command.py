"""The commands `attributes` and `sample` of `python -m rahf.data`.

  python -m rahf.data attributes IMAGES --clip=CLIP
  python -m rahf.data sample IMAGES --quota=category=even --count=1000 --out=DIR

They stand here, and not in `rahf.data`, since a model may answer.
"""

import argparse
import csv
import hashlib
import os
import pathlib
import re
import shlex
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image
from tqdm import tqdm

from rahf.data.attributes import questions as questions_lib
from rahf.data.attributes import report, sampling, table
from rahf.data.attributes.table import Attributes
from rahf.data.images import codec, files, inputs
from rahf.data.images.codec import ImageError
from rahf.data.sources.source import KINDS, Source, open_source
from rahf.data.storage import prepared as prepared_lib
from rahf.errors import InputError
from rahf.fileio.paths import new
from rahf.fileio.staged_folder import staged
from rahf.fileio.validators import argument, real, whole

_ATTRIBUTES = f"""\
Answers questions about images, by default the paper's: is the image photorealistic, and
does it show a human, an animal, an object, an indoor or an outdoor scene?

With --clip, a CLIP answers that was not trained on the questions. --questions is a JSON
file of other questions, their answers, and texts that describe such images. A CLIP is
often too sure of its answers: with --calibrate, a table of known answers of some of the
images (uid and a column for each question), confidences are fitted to them.

With --table, the answers are read from a table of that form, such as those of a VQA
model or of people.

IMAGES is a prepared data set, beside which the answers are written to attributes.csv;
or {KINDS}.
"""
_SAMPLE = """\
Draws a part of the images in which answers have given shares:

  --quota=category=even --quota=photorealistic=yes:0.8,no:0.2

If quotas cannot be met, the message says what is missing. The same seed draws the same
images. Writes into --out:

  images/         the images, unchanged
  prompts.csv     their prompts, as `rahf.annotate` and `rahf.data prepare` take them
  attributes.csv  the answers
  report.md       how many images had each answer before, and have it now
  shares.png      the same, drawn
"""
# Unreadable images that are named.
_NAMED = 5
# What the name of a file cannot have, or only for hidden files.
_NOT_IN_NAMES = re.compile(r'[/%\x00-\x1f\x7f]|^\.')
_LONGEST_NAME = 200  # bytes
_ENDINGS = {'PNG': '.png', 'JPEG': '.jpg', 'WEBP': '.webp'}


def add(commands) -> None:
  """Adds the commands to those of `python -m rahf.data`.

  Args:
    commands: what argparse's `add_subparsers` returns.
  """
  _add_attributes(commands)
  _add_sample(commands)


def _answer(arguments: argparse.Namespace) -> int:
  prepared = _prepared_directory(arguments.images)
  if not (arguments.out or prepared):
    raise InputError(
      f'--out is missing; {arguments.images} is not a prepared data set, so give the '
      'table to write, such as --out=attributes.csv'
    )
  out = new(arguments.out or prepared / table.FILE, '--out')
  if (arguments.clip is None) == (arguments.table is None):
    raise InputError('give either --clip or --table')
  for flag in ('questions', 'calibrate', 'temperature'):
    if arguments.table and getattr(arguments, flag):
      raise InputError(f'--{flag} is for --clip; --table has the answers')
  images = str(prepared or arguments.images)
  source = open_source(images, images_only=True, flag='IMAGES')
  positions = {uid: place for place, uid, _ in reversed([*_names(source)])}
  if arguments.table:
    uids = [*reversed(positions)]
    found = table.read(arguments.table).of(uids, str(arguments.table))
  else:
    found = _ask(images, {*positions.values()}, arguments)
  table.write(out, found)
  print(f'\n{report.answers_table(found)}\n\nWritten to {out}')
  return 0


def _ask(images: str, positions: set[int], arguments: argparse.Namespace) -> Attributes:
  """Returns the answers of a CLIP for the images at these positions of the source."""
  # Imported late: reading a table and sampling need no model.
  from rahf.evaluation import image_features
  from rahf.inference import open_scorer
  from rahf.inference.clip_model import ClipModel
  from rahf.inference.zero_shot import ZeroShot, check_known

  questions = questions_lib.read_questions(arguments.questions or questions_lib.DEFAULT)
  temperatures = _temperatures(arguments.temperature, questions)
  known = None
  if arguments.calibrate:
    known = table.read(arguments.calibrate)
    check_known(questions, known, str(arguments.calibrate))
  model = open_scorer.load(arguments.clip)
  if not isinstance(model, ClipModel):
    raise InputError(f'--clip {arguments.clip} is a RAHF, not a CLIP')
  asked = ZeroShot(model, questions)
  found = image_features.extract(
    asked.extractor(), images, wanted=positions.__contains__, flag='IMAGES'
  )
  for one in found.unreadable[:_NAMED]:
    print(f'Left out: {one.uid}: {one.reason}')
  if len(found.unreadable) > _NAMED:
    print(f'Left out: {len(found.unreadable) - _NAMED:,} more')
  uids = np.array(found.uids)
  similarities = asked.similarities(found.features)
  if known is not None:
    shared = np.isin(uids, known.uids)
    if not shared.any():
      raise InputError(
        f'--calibrate {arguments.calibrate} has none of the images, the first '
        f'{found.uids[0]!r:.80}; it has {known.uids[0]!r:.80}'
      )
    calibrations = asked.calibrate(
      {name: values[shared] for name, values in similarities.items()},
      known.of(uids[shared].tolist(), str(arguments.calibrate)),
    )
    for name, one in calibrations.items():
      temperatures[name] = one.temperature
      print(f'{name}: {one.summary}')
  return asked.answer(found.uids, similarities, temperatures)


def _temperatures(
  given: Sequence[str], questions: questions_lib.Questions
) -> dict[str, float]:
  found = {}
  for text in given:
    name, _, number = text.partition('=')
    try:
      found[name] = float(number)
    except ValueError:
      found[name] = 0.0
    if name not in questions or not 0 < found[name] < np.inf:
      raise InputError(
        f'--temperature {text!r:.80}: give NAME=NUMBER, a number above 0, for one of '
        f'{", ".join(questions)}'
      )
  return found


def _sample(arguments: argparse.Namespace) -> int:
  out = new(arguments.out, '--out')
  prepared = _prepared_directory(arguments.images)
  path = arguments.attributes or (prepared and prepared / table.FILE)
  if not path or not path.exists():
    raise InputError(
      f'{path or "--attributes"} is missing; `python -m rahf.data attributes` writes '
      'the attributes of images'
    )
  images = str(prepared or arguments.images)
  source = open_source(images, arguments.prompts or '', flag='IMAGES')
  rows, known = [*_names(source)], table.read(path)
  # An image of Pick-a-Pic occurs once for each of its comparisons.
  positions = {uid: place for place, uid, usable in reversed(rows) if usable}
  have = {*known.uids}
  unknown = [uid for uid in positions if uid not in have]
  # An image that could not be read has none; if all have none, it is an error.
  known = known.of([uid for uid in positions if uid in have] or unknown, str(path))
  left_out = len({uid for _, uid, _ in rows} - {*positions})
  quotas = sampling.parse_quotas(arguments.quota, known)
  rows = sampling.sample(
    known,
    quotas,
    arguments.count,
    seed=arguments.seed,
    confidence=arguments.confidence,
  )
  drawn = known.take(rows)
  usable = len(sampling.candidates(known, quotas, arguments.confidence))
  facts = [
    f'{len(drawn.uids):,} of {len(known.uids):,} images, drawn with seed '
    f'{arguments.seed}.',
    f'{usable:,} could be drawn: their answers have a quota, and a confidence of '
    f'{arguments.confidence:g} or more.',
    f'Quotas: `{shlex.join(arguments.quota)}`.',
  ]
  if unknown:
    facts.append(f'{len(unknown):,} others have no attributes.')
  if left_out:
    facts.append(f'{left_out:,} others have no prompt, or no image.')
  text = report.sample_report(known, drawn, quotas, facts)
  with staged(out) as folder:
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    names = _copy(folder, source, {positions[uid]: uid for uid in drawn.uids})
    named = drawn._replace(uids=tuple(names[uid] for uid in drawn.uids))
    table.write(folder / table.FILE, named)
    picture = report.draw({'before': known, 'drawn': drawn})
    Image.fromarray(picture).save(folder / 'shares.png')
    (folder / 'report.md').write_text(text)
  print(f'\n{text}\nWritten to {out}')
  return 0


def _copy(folder: pathlib.Path, source: Source, uids: dict[int, str]) -> dict[str, str]:
  """Copies images, and writes their prompts; returns their file names by uid."""
  names, prompts = {}, []
  (folder / 'images').mkdir()
  rows = source.read_rows(uids)
  for position, load in tqdm(rows, 'Copying', len(uids), unit='image', disable=None):
    item, uid = load(), uids[position]
    try:
      is_file = isinstance(item.image, bytes)
      data = item.image if is_file else inputs.read_file(str(item.image))
      names[uid] = file_name(uid, _ENDINGS[codec.open_image(data).format])
    except ImageError as error:
      raise InputError(f'{uid} cannot be copied: {error}') from None
    (folder / 'images' / names[uid]).write_bytes(data)
    prompts.append((names[uid], item.prompt))
  with (folder / 'prompts.csv').open('w', encoding='utf-8', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(('file_name', 'prompt'))
    writer.writerows(prompts)
  return names


def file_name(uid: str, ending: str) -> str:
  """Returns the name of an image's file: its uid, as far as names of files can be so.

  Args:
    ending: for a uid that does not end like an image.
  """
  name = _NOT_IN_NAMES.sub(lambda found: f'%{ord(found[0]):02X}', uid)
  if not files.is_image(pathlib.PurePath(name)):
    name += ending
  if len(os.fsencode(name)) <= _LONGEST_NAME:
    return name
  digest = hashlib.sha256(os.fsencode(uid)).hexdigest()[:16]
  return f'{digest}{pathlib.PurePath(name).suffix}'


def _prepared_directory(images: str) -> pathlib.Path | None:
  """Returns the prepared data set at or below a path; None if there is none."""
  folder = pathlib.Path(images).expanduser()
  if not folder.is_dir() or not any(folder.rglob('dataset_info.json')):
    return None
  return prepared_lib.find(folder)[0]


def _names(source: Source) -> Iterator[tuple[int, str, bool]]:
  """Yields the position and uid of each image, and whether it has a prompt."""
  texts = source.read_texts()
  for place, item in tqdm(texts, 'Names', source.rows, unit='image', disable=None):
    usable = (
      not item.error and isinstance(item.prompt, str) and bool(item.prompt.strip())
    )
    yield place, item.uid or str(place), usable


def _add_attributes(commands) -> None:
  parser = commands.add_parser(
    'attributes',
    help='ask a CLIP about images, such as their category, or read answers',
    description=_ATTRIBUTES,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add, path = parser.add_argument, pathlib.Path
  add('images', metavar='IMAGES', help='see above')
  add('--clip', metavar='CLIP', help='a CLIP, as rahf.load takes it')
  add('--table', type=path, help='CSV, TSV, JSONL or parquet: uid, and the answers')
  add('--questions', type=path, metavar='FILE', help="JSON (default: the paper's two)")
  add('--calibrate', type=path, metavar='TABLE', help='known answers of some images')
  add(
    '--temperature',
    action='append',
    default=[],
    metavar='NAME=NUMBER',
    help='of a question, from an earlier calibration; may be given again',
  )
  add('--out', type=path, metavar='FILE', help='CSV (default: beside a prepared set)')
  parser.set_defaults(run=_answer)


def _add_sample(commands) -> None:
  parser = commands.add_parser(
    'sample',
    help='draw images in which attributes have given shares',
    description=_SAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add, path = parser.add_argument, pathlib.Path
  add('images', metavar='IMAGES', help='as for `attributes`')
  add('--quota', action='append', required=True, help='see above; may be given again')
  add('--count', type=argument(int, whole(1)), required=True, help='of images to draw')
  add('--out', type=path, required=True, metavar='FOLDER', help='where to write')
  add('--attributes', type=path, metavar='TABLE', help='(default: of a prepared set)')
  add('--prompts', metavar='TABLE', help='of a folder of images: file_name and prompt')
  add(
    '--confidence',
    type=argument(float, real(0, 1)),
    default=0.0,
    help='least confidence of the answers with quotas (default: %(default)s)',
  )
  add('--seed', type=argument(int, whole(0)), default=0, help='(default: %(default)s)')
  parser.set_defaults(run=_sample)
